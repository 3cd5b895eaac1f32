//! A caller on a connection of its own, written by hand so that it can hang up at any moment.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::PATIENCE;

/// One connection to the data plane. Dropped, it hangs up.
pub(crate) struct Caller {
    stream: TcpStream,
}

impl Caller {
    /// Connects to a plane, given as `http://address:port`.
    pub(crate) async fn connect(plane: &str) -> Caller {
        let address = plane.strip_prefix("http://").expect("a plane's address");
        let stream = TcpStream::connect(address).await.expect("the plane takes connections");
        stream.set_nodelay(true).expect("a socket takes its options");
        Caller { stream }
    }

    /// The same with a kernel that keeps little of what is not read.
    pub(crate) async fn connect_narrowly(plane: &str) -> Caller {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(64 << 10).expect("a socket takes its options");
        let address = plane.strip_prefix("http://").expect("a plane's address").parse().expect("an address");
        Caller { stream: socket.connect(address).await.expect("the plane takes connections") }
    }

    /// Sends a whole invocation with this request identifier, the event behind its head; ends when the kernel has all.
    pub(crate) async fn send(&mut self, function: &str, request: &str, event: &str) {
        let length = event.len();
        let head = format!(
            "POST /invoke/{function} HTTP/1.1\r\nHost: test\r\nX-Request-Id: {request}\r\nContent-Length: {length}\r\n\
             \r\n"
        );
        self.stream.write_all(head.as_bytes()).await.expect("the plane takes a request");
        self.stream.write_all(event.as_bytes()).await.expect("the plane takes an event");
    }

    /// Sends bytes as they are.
    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.expect("the plane takes bytes");
    }

    /// Reads until `end` came; returns all that was read.
    pub(crate) async fn read_to(&mut self, end: &str) -> String {
        let mut read = Vec::new();
        while !String::from_utf8_lossy(&read).contains(end) {
            let count = timeout(PATIENCE, self.stream.read_buf(&mut read)).await;
            let count = count.unwrap_or_else(|_| panic!("no {end:?} in {:?}", String::from_utf8_lossy(&read)));
            assert_ne!(count.expect("the plane answers"), 0, "no {end:?} in {:?}", String::from_utf8_lossy(&read));
        }
        String::from_utf8(read).expect("text")
    }

    /// Reads at most so many bytes, and says how many there were.
    pub(crate) async fn read_some(&mut self, bytes_max: usize) -> usize {
        let mut bytes = vec![0; bytes_max];
        let read = timeout(PATIENCE, self.stream.read(&mut bytes)).await.expect("bytes come in time");
        let read = read.expect("the plane answers");
        assert_ne!(read, 0, "the plane closed the connection");
        read
    }

    /// Reads until the plane closes the connection.
    pub(crate) async fn read_to_close(&mut self) -> String {
        let mut read = Vec::new();
        // A reset is an end as well.
        let _ = timeout(PATIENCE, self.stream.read_to_end(&mut read)).await.expect("it closes in time");
        String::from_utf8_lossy(&read).into_owned()
    }

    /// Reads a whole reply and returns its status.
    pub(crate) async fn reply(&mut self) -> u16 {
        let mut read = Vec::new();
        loop {
            if let Some(status) = status_of_whole(&read) {
                return status;
            }
            let count = self.stream.read_buf(&mut read).await.expect("the plane answers");
            assert_ne!(count, 0, "the reply ends in its middle: {}", String::from_utf8_lossy(&read));
        }
    }
}

/// The status of the reply that was read, if it is there to its last byte.
fn status_of_whole(read: &[u8]) -> Option<u16> {
    let head_bytes = read.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&read[..head_bytes]).expect("a head is text").to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
    let whole = read.len() >= head_bytes + length.parse::<usize>().expect("a number");
    whole.then(|| head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status"))
}
