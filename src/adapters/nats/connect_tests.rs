//! Against real servers: what people are told when a connection does not come about.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nkeys::KeyPair;

use super::*;
use crate::config::settings::Tls;

const LIMIT: Duration = Duration::from_secs(5);

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A real nats-server that ends with the test.
struct Server {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Server {
    fn start(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let file = dir.path().join("server.conf");
        std::fs::write(&file, format!("listen: 127.0.0.1:{port}\n{config}")).unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let child = Command::new(root.join(".tools/servers/2.10.26/nats-server"))
            .arg("-c")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, port, dir };
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "the server does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn to(url: impl Into<String>, auth: Auth) -> Connect {
    Connect {
        urls: vec![url.into()],
        auth,
        ..Connect::default()
    }
}

async fn error(c: &Connect) -> String {
    connect(c, "test", LIMIT).await.unwrap_err().to_string()
}

#[tokio::test]
async fn nothing_listens_is_said_so() {
    let url = format!("nats://127.0.0.1:{}", free_port());
    let error = error(&to(&url, Auth::None)).await;
    assert!(error.starts_with(&format!("nothing listens at {url}")), "{error}");
}

#[tokio::test]
async fn a_listener_that_says_nothing_is_a_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("nats://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let limit = Duration::from_millis(300);
    let error = connect(&to(url, Auth::None), "test", limit).await.unwrap_err();
    assert!(error.to_string().contains("within 300ms"), "{error}");
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_said_so() {
    let error = error(&to("nats://no-such-host.invalid:4222", Auth::None)).await;
    assert!(
        error.starts_with("cannot find the address of nats://no-such-host.invalid"),
        "{error}"
    );
}

#[tokio::test]
async fn a_wrong_password_names_the_user_and_not_the_password() {
    let server = Server::start("authorization { user: w, password: right }\n");
    let wrong = to(server.url(), Auth::User("w".into(), "wr0ng".into()));
    let error = error(&wrong).await;
    assert!(error.contains("refused user \"w\""), "{error}");
    assert!(!error.contains("wr0ng"), "{error}");
    let right = to(server.url(), Auth::User("w".into(), "right".into()));
    connect(&right, "test", LIMIT).await.unwrap();
}

#[tokio::test]
async fn tls_that_cannot_be_trusted_is_a_tls_error() {
    // The server demands TLS; its certificate is signed by nobody we know.
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = certificate(dir.path());
    let server = Server::start(&format!("tls {{ cert_file: {cert:?}, key_file: {key:?} }}\n"));
    let plain = to(server.url(), Auth::None);
    let error = error(&plain).await;
    assert!(error.starts_with("no TLS with"), "{error}");
    let trusting = Connect {
        tls: Tls {
            ca: Some(cert),
            ..Tls::default()
        },
        ..plain
    };
    connect(&trusting, "test", LIMIT).await.unwrap();
}

/// A self-signed certificate for 127.0.0.1 and its key, by openssl.
fn certificate(dir: &Path) -> (PathBuf, PathBuf) {
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
        ])
        .args([
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=test",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
        ])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .stderr(Stdio::null())
        .status()
        .expect("this test needs openssl");
    assert!(made.success());
    (cert, key)
}

#[tokio::test]
async fn an_nkey_file_is_read_again_at_every_connect() {
    let (old, new) = (KeyPair::new_user(), KeyPair::new_user());
    let server = Server::start(&format!(
        "authorization {{ users: [ {{ nkey: {} }} ] }}\n",
        new.public_key()
    ));
    let file = server.file("user.nk", &old.seed().unwrap());
    let c = to(server.url(), Auth::Nkey(file.clone()));
    assert!(error(&c).await.contains("refused nkey file"));
    // The agent's connection keeps trying; the renewed file lets it in.
    let client = agent_options(&c, &HostName::new("h").unwrap())
        .unwrap()
        .connect(servers(&c).unwrap())
        .await
        .unwrap();
    std::fs::write(&file, new.seed().unwrap()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while client.connection_state() != async_nats::connection::State::Connected {
        assert!(Instant::now() < deadline, "never connected");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_token_works_and_an_agent_hears_itself() {
    use futures_util::StreamExt as _;
    let server = Server::start("authorization { token: t }\n");
    let c = to(server.url(), Auth::Token("t".into()));
    let client = agent_options(&c, &HostName::new("h").unwrap())
        .unwrap()
        .connect(servers(&c).unwrap())
        .await
        .unwrap();
    let mut subscription = client.subscribe("x").await.unwrap();
    client.publish("x", "y".into()).await.unwrap();
    let heard = tokio::time::timeout(LIMIT, subscription.next()).await;
    assert_eq!(heard.unwrap().unwrap().payload, "y");
}

#[test]
fn the_agent_never_waits_long_for_its_next_try() {
    for attempt in 0..10_000 {
        assert!(retry_delay(attempt) <= MAX_RETRY_DELAY);
    }
    assert_eq!(retry_delay(1), Duration::ZERO);
}
