//! Converts between the bytes of requests and replies and a function's types.
//!
//! `instance` calls these around each handler. A new type of event or reply needs one `impl`, here or in a function's
//! own crate. The context is not used: the host sends no content type.

use serde::{Serialize, de::DeserializeOwned};

use crate::{Error, Result};

/// A type that can be read from a request's bytes.
pub trait FromEvent: Sized {
    /// Reads the event, or says what was expected instead.
    fn from_event(bytes: Vec<u8>) -> Result<Self>;
}

/// A type that can be written as a reply's bytes.
pub trait IntoReply {
    /// Writes the reply.
    fn into_reply(self) -> Result<Vec<u8>>;
}

/// JSON in an event or a reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl FromEvent for Vec<u8> {
    fn from_event(bytes: Vec<u8>) -> Result<Self> {
        Ok(bytes)
    }
}

impl FromEvent for String {
    fn from_event(bytes: Vec<u8>) -> Result<Self> {
        String::from_utf8(bytes)
            .map_err(|error| Error::from(format!("expected an event of UTF-8 text: {}", error.utf8_error())))
    }
}

/// A function without an event ignores the bytes it is sent.
impl FromEvent for () {
    fn from_event(_: Vec<u8>) -> Result<Self> {
        Ok(())
    }
}

impl<T: DeserializeOwned> FromEvent for Json<T> {
    fn from_event(bytes: Vec<u8>) -> Result<Self> {
        serde_json::from_slice(&bytes)
            .map(Json)
            .map_err(|error| Error::from(format!("expected an event of JSON for {}: {error}", short_name::<T>())))
    }
}

impl IntoReply for Vec<u8> {
    fn into_reply(self) -> Result<Vec<u8>> {
        Ok(self)
    }
}

impl IntoReply for String {
    fn into_reply(self) -> Result<Vec<u8>> {
        Ok(self.into_bytes())
    }
}

impl IntoReply for &'static str {
    fn into_reply(self) -> Result<Vec<u8>> {
        Ok(self.into())
    }
}

impl IntoReply for () {
    fn into_reply(self) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }
}

impl<T: Serialize> IntoReply for Json<T> {
    fn into_reply(self) -> Result<Vec<u8>> {
        serde_json::to_vec(&self.0).map_err(|error| Error::from(format!("the reply does not fit into JSON: {error}")))
    }
}

/// A type's name as an author wrote it, `Order` and not `shop::model::Order`. Names with parameters are not shortened.
fn short_name<T>() -> &'static str {
    let name = std::any::type_name::<T>();
    match name.rsplit_once("::") {
        Some((_, last)) if !name.contains('<') => last,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct Order {
        #[expect(dead_code, reason = "only its absence matters here")]
        item: String,
    }

    fn refused<T: FromEvent>(event: &[u8]) -> String {
        T::from_event(event.to_vec()).err().expect("the event is refused").to_string()
    }

    #[test]
    fn a_refused_event_is_told_what_was_expected() {
        assert_eq!(
            refused::<String>(b"Gr\xfc\xdfe"),
            "expected an event of UTF-8 text: invalid utf-8 sequence of 1 bytes from index 2"
        );
        assert_eq!(
            refused::<Json<Order>>(b"{}"),
            "expected an event of JSON for Order: missing field `item` at line 1 column 2"
        );
        assert_eq!(
            refused::<Json<Vec<u8>>>(b""),
            "expected an event of JSON for alloc::vec::Vec<u8>: EOF while parsing a value at line 1 column 0"
        );
    }

    #[test]
    fn each_shape_comes_back_as_it_went() {
        assert_eq!(String::from_event("é".into()).unwrap().into_reply().unwrap(), "é".as_bytes());
        assert_eq!(Vec::from_event(vec![0, 255]).unwrap().into_reply().unwrap(), [0, 255]);
        assert_eq!(Json::<[u8; 2]>::from_event(b"[1, 2]".into()).unwrap().into_reply().unwrap(), b"[1,2]");
        <()>::from_event(b"anything".into()).unwrap();
        assert!(().into_reply().unwrap().is_empty());
    }
}
