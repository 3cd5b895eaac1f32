//! TLS on both planes, as curl and openssl see it: names, versions, other certificates without a restart, certificates of
//! operators, and the command line over https.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Output;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;

use crate::support::{Caller, TestHost, curl, dormouse, eventually};

/// An authority, and a folder for what it signs.
struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Authority { folder, issuer }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Signs a certificate for these names, and writes it as `NAME.pem` and `NAME.key`, and as `NAME.both` with its key.
    fn sign(&self, name: &str, names: &[&str]) {
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        for (ending, text) in [
            ("pem", certificate.pem()),
            ("key", key.serialize_pem()),
            ("both", certificate.pem() + &key.serialize_pem()),
        ] {
            let path = self.path(&format!("{name}.{ending}"));
            // As careful operators do: others see the file before or the file after.
            fs::write(path.with_extension("new"), text).unwrap();
            fs::rename(path.with_extension("new"), path).unwrap();
        }
    }

    /// The flags of a host with these certificates.
    fn flags(&self, names: &[&str]) -> [String; 2] {
        let files = |ending: &str| names.iter().map(|name| self.text(&format!("{name}.{ending}"))).collect::<Vec<_>>();
        [format!("--tls-cert={}", files("pem").join(",")), format!("--tls-key={}", files("key").join(","))]
    }
}

fn port(plane: &str) -> &str {
    plane.rsplit(':').next().unwrap()
}

/// Shakes hands with a plane.
async fn openssl(plane: &str, arguments: &[&str]) -> Output {
    let address = plane.rsplit('/').next().unwrap();
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", address]).args(arguments).stdin(std::process::Stdio::null());
    command.output().await.expect("openssl runs")
}

#[tokio::test]
async fn each_name_gets_its_certificate_on_both_planes_and_both_versions_of_http() {
    let authority = Authority::new();
    authority.sign("first", &["localhost"]);
    authority.sign("second", &["shop.example"]);
    let [chains, keys] = authority.flags(&["first", "second"]);
    let host = TestHost::builder().flag(&chains).flag(&keys).start().await;
    host.deploy("hello", "example-hello", json!({})).await;
    let (ca, data, admin) = (authority.text("ca.pem"), port(&host.data), port(&host.admin));
    let shown = "%{http_version} %{http_code}";
    for name in ["localhost", "shop.example"] {
        let resolve = [data, admin].map(|port| format!("{name}:{port}:127.0.0.1"));
        let flags = ["--cacert", &ca, "--resolve", &resolve[0], "--resolve", &resolve[1], "-w", shown];
        let call = format!("https://{name}:{data}/invoke/hello");
        let ask = async |more: &[&str]| curl(&[&flags[..], more].concat()).await;
        assert_eq!(ask(&["-d", "you", &call]).await, "Hello, you!\n2 200");
        assert_eq!(ask(&["--http1.1", "-d", "you", &call]).await, "Hello, you!\n1.1 200");
        let list = format!("https://{name}:{admin}/v1/functions");
        // Without a token the admin plane answers to names of this machine only.
        let answer = if name == "localhost" { "2 200" } else { "2 403" };
        assert_eq!(ask(&["-o", "/dev/null", &list]).await, answer);
    }
    let seen = openssl(&host.data, &["-servername", "shop.example"]).await;
    assert!(String::from_utf8_lossy(&seen.stdout).contains("CN = second"), "{seen:?}");
    let seen = openssl(&host.data, &["-servername", "nobody.example"]).await;
    assert!(String::from_utf8_lossy(&seen.stdout).contains("CN = first"), "who asks for no known name: {seen:?}");
}

#[tokio::test]
async fn old_versions_and_ciphers_are_refused() {
    let host = TestHost::builder().flag("--tls-self-signed").start().await;
    for (arguments, taken) in [
        (&["-tls1_3"][..], true),
        (&["-tls1_2"], true),
        (&["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], false),
        (&["-tls1", "-cipher", "ALL:@SECLEVEL=0"], false),
        // No forward secrecy, and no authenticated encryption.
        (&["-tls1_2", "-cipher", "AES128-GCM-SHA256"], false),
        (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"], false),
        (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], true),
    ] {
        for plane in [&host.data, &host.admin] {
            let seen = openssl(plane, arguments).await;
            assert_eq!(seen.status.success(), taken, "{arguments:?}: {}", String::from_utf8_lossy(&seen.stderr));
        }
    }
}

#[tokio::test]
async fn who_speaks_plainly_to_tls_is_told_and_the_other_way_round() {
    let host = TestHost::builder().flag("--tls-self-signed").start().await;
    let plain = host.data.replace("https", "http");
    for request in ["GET / HTTP/1.1\r\nHost: test\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut caller = Caller::connect(&plain).await;
        caller.write(request).await;
        let told = caller.read_to_close().await;
        assert!(told.starts_with("HTTP/1.1 400") && told.contains("https://"), "{told}");
    }
    let big = curl(&["-d", &"x".repeat(100_000), "-w", " %{http_code}", &plain]).await;
    assert!(big.ends_with(" 400"), "{big}");
    let plainly = TestHost::start().await;
    let seen = openssl(&plainly.data, &[]).await;
    assert!(String::from_utf8_lossy(&seen.stderr).contains("protocol version"), "{seen:?}");
}

#[tokio::test]
async fn other_certificates_are_taken_without_a_restart_and_cost_no_request() {
    let authority = Authority::new();
    authority.sign("host", &["localhost"]);
    let [chain, key] = authority.flags(&["host"]);
    let host = TestHost::builder().flag(&chain).flag(&key).start().await;
    let hello = host.deploy("hello", "example-hello", json!({"concurrency": 16})).await;
    let other = Authority::new();
    other.sign("host", &["localhost"]);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let load: Vec<_> = (0..4)
        .map(|index| {
            let (hello, stopped) = (hello.clone(), stopped.clone());
            tokio::task::spawn(async move {
                let mut count = 0;
                while !*stopped.borrow() {
                    // Some keep their connection, and some have a new one for each request.
                    let request = hello.request("you");
                    let request = if index % 2 == 0 { request } else { request.header("connection", "close") };
                    assert_eq!(request.send().await.expect("an answer").status(), 200);
                    count += 1;
                }
                count
            })
        })
        .collect();
    let trusts = async |ca: &Authority| {
        let url = format!("https://localhost:{}/invoke/hello", port(&host.data));
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--cacert", &ca.text("ca.pem"), "-d", "you", &url]);
        curl.output().await.unwrap().status.success()
    };
    assert!(trusts(&authority).await && !trusts(&other).await);
    // Half a change: the key is not that of the certificate.
    fs::copy(other.path("host.key"), authority.path("host.key")).unwrap();
    host.signal(Signal::HUP);
    let told = async |text: &str| {
        let log = host.log();
        if log.contains(text) { Ok(()) } else { Err(log) }
    };
    eventually("a word about it", async || told("is not that of the certificate").await).await;
    assert!(trusts(&authority).await, "what was there before stays");
    fs::copy(other.path("host.pem"), authority.path("host.pem")).unwrap();
    host.signal(Signal::HUP);
    eventually("the new one", async || if trusts(&other).await { Ok(()) } else { Err(host.log()) }).await;
    stop.send(true).unwrap();
    for calls in load {
        assert!(calls.await.unwrap() > 0);
    }
}

#[tokio::test]
async fn certificates_that_change_are_seen_without_a_signal() {
    let authority = Authority::new();
    authority.sign("host", &["localhost"]);
    let [chain, key] = authority.flags(&["host"]);
    let host = TestHost::builder().flag(&chain).flag(&key).start().await;
    let serial = async || {
        let seen = openssl(&host.admin, &["-showcerts"]).await;
        String::from_utf8_lossy(&seen.stdout).split("-----BEGIN CERTIFICATE-----").nth(1).map(str::to_owned)
    };
    let before = serial().await.expect("a certificate");
    authority.sign("host", &["localhost"]);
    eventually("the new certificate", async || {
        let now = serial().await;
        if now.is_some() && now.as_ref() != Some(&before) { Ok(()) } else { Err(host.log()) }
    })
    .await;
}

#[tokio::test]
async fn what_is_no_file_is_not_read_and_holds_nothing_up() {
    let authority = Authority::new();
    authority.sign("host", &["localhost"]);
    let [chain, key] = authority.flags(&["host"]);
    let host = TestHost::builder().flag(&chain).flag(&key).start().await;
    fs::remove_file(authority.path("host.key")).unwrap();
    let mut make = Command::new("mkfifo");
    assert!(make.arg(authority.path("host.key")).status().await.unwrap().success());
    host.signal(Signal::HUP);
    let told = async || if host.log().contains("is no file") { Ok(()) } else { Err(host.log()) };
    eventually("a word about it", told).await;
    host.signal(Signal::TERM);
    assert!(host.ended().await.0.success());
}

#[tokio::test]
async fn operators_may_show_a_certificate_instead_of_a_token() {
    let (authority, other) = (Authority::new(), Authority::new());
    authority.sign("host", &["localhost"]);
    authority.sign("operator", &["operator"]);
    other.sign("operator", &["operator"]);
    let [chain, key] = authority.flags(&["host"]);
    let builder = TestHost::builder().flag(&chain).flag(&key);
    let host = builder.flag(&format!("--admin-client-ca={}", authority.text("ca.pem"))).start().await;
    let url = format!("https://localhost:{}/v1/host", port(&host.admin));
    let ca = authority.text("ca.pem");
    let flags = ["--cacert", &ca, "-o", "/dev/null", "-w", "%{http_code}"];
    let own = authority.text("operator.both");
    assert_eq!(curl(&[&flags[..], &["--cert", &own, &url]].concat()).await, "200");
    assert_eq!(curl(&[&flags[..], &[&url]].concat()).await, "401");
    let mut foreign = Command::new("curl");
    foreign.args(["-sS", "--cacert", &ca, "--cert", &other.text("operator.both"), &url]);
    assert!(!foreign.output().await.unwrap().status.success(), "nobody here has signed it");
    let list = async |more: &[&str]| {
        let mut list = dormouse();
        list.args(["list", "--ca", &ca, "--admin", &format!("https://localhost:{}", port(&host.admin))]).args(more);
        list.output().await.unwrap()
    };
    let listed = list(&["--client-cert", &own]).await;
    assert!(listed.status.success(), "{listed:?}");
    let refused = String::from_utf8(list(&[]).await.stderr).unwrap();
    assert!(refused.contains("--client-cert"), "{refused}");
}

#[tokio::test]
async fn the_command_line_trusts_a_host_that_signs_itself_only_if_told_to() {
    let builder = TestHost::builder().flag("--tls-self-signed");
    let (host, state) = (builder.clone().start().await, builder.state_dir());
    host.deploy("hello", "example-hello", json!({})).await;
    let certificate = state.join("tls/self-signed.pem");
    let run = async |arguments: &[&str]| {
        let mut command = dormouse();
        command.args(arguments).args(["--admin", &format!("https://localhost:{}", port(&host.admin))]);
        command.output().await.unwrap()
    };
    let wary = String::from_utf8(run(&["list"]).await.stderr).unwrap();
    assert!(wary.contains("--ca") && wary.contains("certificate"), "{wary}");
    let trusting = run(&["invoke", "hello", "you", "--ca", certificate.to_str().unwrap()]).await;
    assert_eq!(String::from_utf8_lossy(&trusting.stdout), "Hello, you!\n", "{trusting:?}");
    assert!(run(&["list", "--insecure"]).await.status.success());
    let mode = fs::metadata(state.join("tls/self-signed.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "others may not read the key");
    // The next run has the same certificate, so that trust stays.
    let before = fs::read(&certificate).unwrap();
    let host = host.restart().await;
    assert_eq!(fs::read(&certificate).unwrap(), before);
    drop(host);
}

#[tokio::test]
async fn settings_that_make_no_sense_are_refused_with_what_would() {
    let authority = Authority::new();
    authority.sign("one", &["localhost"]);
    authority.sign("two", &["localhost"]);
    let (one, two) = (authority.text("one.pem"), authority.text("two.key"));
    let absent = authority.text("absent.pem");
    fs::write(authority.path("empty.pem"), "").unwrap();
    for (flags, told) in [
        (vec![format!("--tls-cert={one}"), format!("--tls-key={two}")], "is not that of the certificate"),
        (vec![format!("--tls-cert={absent}"), format!("--tls-key={two}")], "absent.pem: No such file"),
        (
            vec![format!("--tls-cert={}", authority.text("empty.pem")), format!("--tls-key={two}")],
            "holds no certificate",
        ),
        (vec![format!("--tls-cert={one}"), format!("--tls-key={one}")], "holds no private key"),
        (vec![format!("--tls-cert={one},{one}"), format!("--tls-key={two}")], "each chain needs its key"),
        (vec![format!("--admin-client-ca={one}")], "needs TLS"),
    ] {
        let builder = flags.iter().fold(TestHost::builder(), |builder, flag| builder.flag(flag));
        let output = builder.command().output().await.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(told), "{flags:?}: {said}");
    }
}
