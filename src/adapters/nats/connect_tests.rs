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

/// A claim of `issuer` about `subject`, as nsc makes it.
fn jwt(issuer: &KeyPair, subject: &KeyPair, nats: serde_json::Value) -> String {
    let header = base64(br#"{"typ":"JWT","alg":"ed25519-nkey"}"#);
    let claims = serde_json::json!({
        "jti": "t", "iat": 1, "name": "t", "nats": nats,
        "iss": issuer.public_key(), "sub": subject.public_key(),
    });
    let signed = format!("{header}.{}", base64(claims.to_string().as_bytes()));
    let signature = issuer.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", base64(&signature))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte));
        let word = word << (8 * (3 - chunk.len()));
        for digit in 0..=chunk.len() {
            text.push(char::from(DIGITS[(word >> (18 - 6 * digit)) as usize & 63]));
        }
    }
    text
}

#[tokio::test]
async fn creds_and_a_contexts_jwt_let_us_in_where_accounts_are_jwts() {
    use serde_json::json;
    let (operator, account, user) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_user());
    let limits = json!({"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1});
    let operator_jwt = jwt(&operator, &operator, json!({"type": "operator", "version": 2}));
    let account_jwt = jwt(
        &operator,
        &account,
        json!({"type": "account", "version": 2, "limits": limits}),
    );
    let user_jwt = jwt(
        &account,
        &user,
        json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1}),
    );
    let server = Server::start(&format!(
        "operator: {operator_jwt}\nresolver: MEMORY\nresolver_preload: {{ {}: {account_jwt} }}\n",
        account.public_key()
    ));
    let creds = |seed: &str| {
        format!(
            "-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    };
    let seed = user.seed().unwrap();
    let good = server.file("good.creds", &creds(&seed));
    connect(&to(server.url(), Auth::Creds(good)), "test", LIMIT)
        .await
        .unwrap();
    let context = Auth::Jwt {
        jwt: user_jwt.clone(),
        seed,
    };
    connect(&to(server.url(), context), "test", LIMIT).await.unwrap();
    let stranger = creds(&KeyPair::new_user().seed().unwrap());
    let bad = server.file("bad.creds", &stranger);
    assert!(
        error(&to(server.url(), Auth::Creds(bad)))
            .await
            .contains("refused creds file")
    );
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
