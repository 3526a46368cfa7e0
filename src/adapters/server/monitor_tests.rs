use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::adapters::server::real::{Server, VERSIONS};
use crate::core::server::{Gatewayz, Jsz};

const LIMIT: Duration = Duration::from_millis(400);

/// What a fake port does after it has read the request.
enum Answer {
    Whole(Vec<u8>),
    ThenSilence(Vec<u8>),
    Drip(Vec<u8>),
    Endless(&'static str),
}

async fn ask(endpoint: Endpoint, answer: Answer) -> Result<Sample, ReadError> {
    ask_within(LIMIT, endpoint, answer).await
}

async fn ask_within(limit: Duration, endpoint: Endpoint, answer: Answer) -> Result<Sample, ReadError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let port = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 1024];
        let _ = stream.read(&mut request).await;
        // Errors only say that the reader has gone, which is what it should do.
        match answer {
            Answer::Whole(bytes) => drop(stream.write_all(&bytes).await),
            Answer::ThenSilence(bytes) => {
                let _ = stream.write_all(&bytes).await;
                let _ = stream.read(&mut request).await;
            }
            Answer::Drip(bytes) => {
                for byte in bytes {
                    if stream.write_all(&[byte]).await.is_err() {
                        break;
                    }
                    tokio::time::sleep(LIMIT / 8).await;
                }
            }
            Answer::Endless(head) => {
                let _ = stream.write_all(head.as_bytes()).await;
                while stream.write_all(&[b' '; 65536]).await.is_ok() {}
            }
        }
    });
    let started = std::time::Instant::now();
    let read = Monitor::new(&url, limit).unwrap().read(endpoint).await;
    assert!(started.elapsed() < limit * 8, "the timeout holds for the whole read");
    port.abort();
    read
}

fn http(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

const VARZ: &str = r#"{"server_id":"N","version":"2.10.26"}"#;

#[tokio::test]
async fn a_good_answer_is_a_sample() {
    let read = ask(Endpoint::Varz, Answer::Whole(http("200 OK", VARZ))).await;
    assert!(matches!(read, Ok(Sample::Varz(v)) if v.server_id == "N"));
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunked = format!("{chunked}{:x}\r\n{VARZ}\r\n0\r\n\r\n", VARZ.len()).into_bytes();
    let read = ask(Endpoint::Varz, Answer::Whole(chunked)).await;
    assert!(matches!(read, Ok(Sample::Varz(v)) if v.server_id == "N"));
}

#[tokio::test]
async fn a_healthz_that_says_no_is_a_sample() {
    for status in ["500 Internal Server Error", "503 Service Unavailable"] {
        let body = r#"{"status":"unavailable","error":"JetStream is not current"}"#;
        let read = ask(Endpoint::Healthz, Answer::Whole(http(status, body))).await;
        let Ok(Sample::Healthz(health)) = read else {
            panic!("{read:?}")
        };
        assert_eq!((health.ok, health.detail.as_str()), (false, "JetStream is not current"));
        let read = ask(Endpoint::Varz, Answer::Whole(http(status, VARZ))).await;
        assert!(matches!(read, Err(ReadError::NotNats { .. })), "only healthz: {read:?}");
    }
}

#[tokio::test]
async fn something_else_is_told_by_its_name() {
    for answer in [
        http("200 OK", "<html>It works</html>"),
        http("200 OK", r#"{"hello":"world"}"#),
        http("404 Not Found", VARZ),
        http("302 Found", ""),
        b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
        b"INFO {\"server_id\":\"N\"}\r\n".to_vec(),
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n{}".to_vec(),
    ] {
        let text = String::from_utf8_lossy(&answer).into_owned();
        let read = ask(Endpoint::Varz, Answer::Whole(answer)).await;
        assert!(matches!(read, Err(ReadError::NotNats { .. })), "{text}: {read:?}");
    }
}

#[tokio::test]
async fn a_broken_answer_is_broken() {
    let long = format!("HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{VARZ}");
    let short = format!("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{VARZ}");
    let cut = format!("HTTP/1.1 200 OK\r\n\r\n{}", &VARZ[..20]);
    for answer in [long.as_str(), &short, &cut, "", "HTTP/1.1 200 OK\r\nConte"] {
        let read = ask(Endpoint::Varz, Answer::Whole(answer.as_bytes().to_vec())).await;
        assert!(matches!(read, Err(ReadError::Broken { .. })), "{answer}: {read:?}");
    }
}

#[tokio::test]
async fn an_endless_body_ends_at_the_limit() {
    let endless = Answer::Endless("HTTP/1.1 200 OK\r\n\r\n");
    match ask_within(LIMIT * 50, Endpoint::Varz, endless).await {
        Err(ReadError::Broken { what, .. }) => assert!(what.contains("larger"), "{what}"),
        other => panic!("{other:?}"),
    }
    let headers = ask_within(LIMIT * 50, Endpoint::Varz, Answer::Endless("HTTP/1.1 200 OK\r\nX: ")).await;
    assert!(matches!(headers, Err(ReadError::NotNats { .. })), "{headers:?}");
}

#[tokio::test]
async fn silence_and_slowness_end_at_the_timeout() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n".to_vec();
    for answer in [
        Answer::ThenSilence(Vec::new()),
        Answer::ThenSilence(head.clone()),
        Answer::Drip([head, vec![b' '; 500]].concat()),
    ] {
        let read = ask(Endpoint::Varz, answer).await;
        assert!(matches!(read, Err(ReadError::Timeout { after: LIMIT, .. })), "{read:?}");
    }
}

#[tokio::test]
async fn a_closed_port_says_what_to_look_at() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let error = Monitor::new(&url, LIMIT)
        .unwrap()
        .read(Endpoint::Varz)
        .await
        .unwrap_err();
    assert_eq!(error.reason(), "connect");
    assert!(error.to_string().contains(&format!("{url}varz")), "{error}");
}

#[test]
fn a_bad_address_is_refused_at_once() {
    for bad in [
        "",
        "127.0.0.1:8222",
        "https://127.0.0.1:8222",
        "http://",
        "unix:/x",
        "http://a b",
    ] {
        let error = Monitor::new(bad, LIMIT).unwrap_err().to_string();
        assert!(error.contains("http://127.0.0.1:8222"), "{error}");
    }
    let v6 = Monitor::new("http://[::1]:8222/base/", LIMIT).unwrap();
    assert_eq!(
        (v6.host.as_str(), v6.port, v6.base.as_str()),
        ("::1", 8222, "http://[::1]:8222/base")
    );
}

#[tokio::test]
async fn all_endpoints_of_real_servers_are_read() {
    for version in VERSIONS {
        let server = Server::start(version, false).await;
        for endpoint in Endpoint::ALL {
            let read = server.monitor.read(endpoint).await;
            match read {
                Ok(Sample::Varz(varz)) => assert_eq!(varz.version, version),
                Ok(Sample::Routez(routes)) => assert_eq!(routes, []),
                Ok(Sample::Gatewayz(gateways)) => assert_eq!(gateways, Gatewayz::default()),
                Ok(Sample::Healthz(health)) => assert!(health.ok, "{health:?}"),
                Ok(Sample::Accstatz(read)) => {
                    assert_eq!(read.server_id, server.varz.server_id);
                    let system = read.system.unwrap();
                    assert_eq!((system.account.as_str(), system.clients), ("$SYS", 0), "{version}");
                    assert_eq!((read.accounts, read.active_accounts), (2, 0), "{version}");
                }
                other => panic!("{version}: {other:?}"),
            }
        }
        let streams = server.monitor.read(Endpoint::Jsz).await;
        assert_eq!(streams, Ok(Sample::Jsz(Jsz::default())), "{version}");
        server.freeze();
        let error = server.monitor.read(Endpoint::Varz).await.unwrap_err();
        assert_eq!(error.reason(), "timeout", "{version} is frozen");
    }
}

/// 500 on most versions, 503 on 2.9.10; `/varz` says nothing about it.
#[tokio::test]
async fn a_lame_duck_shows_in_healthz_only() {
    for version in VERSIONS {
        let server = Server::start(version, false).await;
        let client = format!("{}:{}", server.varz.host, server.varz.port);
        let mut client = TcpStream::connect(client).await.unwrap();
        client
            .write_all(b"CONNECT {\"verbose\":false}\r\nPING\r\n")
            .await
            .unwrap();
        let mut said = Vec::new();
        while !said.windows(4).any(|w| w == b"PONG") {
            assert!(client.read_buf(&mut said).await.unwrap() > 0, "{version}");
        }
        server.signal("-USR2");
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        let health = loop {
            match server.monitor.read(Endpoint::Healthz).await {
                Ok(Sample::Healthz(health)) if !health.ok => break health,
                other => assert!(std::time::Instant::now() < deadline, "{version}: {other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert!(health.detail.contains("ready for connections"), "{health:?}");
        let varz = server.monitor.read(Endpoint::Varz).await;
        assert!(matches!(varz, Ok(Sample::Varz(v)) if v.connections == 1));
    }
}
