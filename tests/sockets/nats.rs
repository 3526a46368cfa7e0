//! Real nats-servers on free loopback ports, each ended with its value.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nats_watchdog::adapters::host::sockets::ServerEndpoint;
use serde_json::Value;

pub(crate) struct Server {
    child: Child,
    dir: tempfile::TempDir,
    ports: Value,
    id: String,
}

pub(crate) fn binary(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!(".tools/servers/{version}/nats-server"))
}

/// Polls until it holds; fails with `what` after 20 s.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(20) {
        if let Some(value) = look() {
            return value;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("not within 20 s: {what}");
}

impl Server {
    /// `runner` goes before the server's own command line (`setpriv …`).
    pub(crate) fn start(version: &str, name: &str, config: &str, runner: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // A server that runs as somebody else has to read its configuration and write its ports.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(dir.path(), open).unwrap();
        let path = dir.path().join("nats.conf");
        let config = format!(
            "server_name: {name}\nlisten: \"127.0.0.1:-1\"\nhttp: \"127.0.0.1:-1\"\nports_file_dir: {:?}\n{config}\n",
            dir.path()
        );
        std::fs::write(&path, config).unwrap();
        let server = dir.path().join("nats-server");
        std::fs::copy(binary(version), &server).expect("run tools/servers.sh first");
        let mut command = match runner {
            [] => Command::new(&server),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(&server);
                command
            }
        };
        command.arg("-c").arg(&path).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let mut server = Self {
            child,
            dir,
            ports: Value::Null,
            id: String::new(),
        };
        let file = server
            .dir
            .path()
            .join(format!("nats-server_{}.ports", server.child.id()));
        server.ports = eventually("the server writes its ports", || {
            serde_json::from_slice(&std::fs::read(&file).ok()?).ok()
        });
        server.id = server.get("/varz")["server_id"].as_str().unwrap().to_owned();
        server
    }

    fn address(&self, kind: &str) -> SocketAddr {
        let url = self.ports[kind][0].as_str().unwrap();
        url.split("://").last().unwrap().parse().unwrap()
    }

    pub(crate) fn cluster(&self) -> SocketAddr {
        self.address("cluster")
    }

    pub(crate) fn endpoint(&self) -> ServerEndpoint {
        let address = self.address("nats");
        ServerEndpoint {
            host: address.ip().to_string(),
            port: address.port(),
        }
    }

    fn get(&self, path: &str) -> Value {
        let mut stream = TcpStream::connect(self.address("monitoring")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    fn routes(&self) -> Vec<Route> {
        let routez = self.get("/routez");
        let routes = routez["routes"].as_array().cloned().unwrap_or_default();
        routes
            .iter()
            .filter_map(|route| {
                // A route that is just being closed has no address any more.
                let ip = route["ip"].as_str().unwrap().parse().ok()?;
                let port = route["port"].as_u64().unwrap().try_into().unwrap();
                Some(Route {
                    rid: route["rid"].as_u64().unwrap(),
                    peer: route["remote_id"].as_str().unwrap_or_default().to_owned(),
                    remote: SocketAddr::new(ip, port),
                })
            })
            .collect()
    }

    pub(crate) fn routes_to(&self, peer: &Self) -> Vec<Route> {
        let mut routes = self.routes();
        // By id: 2.9 does not show names here.
        routes.retain(|r| r.peer == peer.id);
        routes
    }

    pub(crate) fn rids(&self, peer: &Self) -> BTreeSet<u64> {
        self.routes_to(peer).iter().map(|r| r.rid).collect()
    }

    pub(crate) fn client(&self) -> Client {
        let stream = TcpStream::connect(self.address("nats")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut client = Client(BufReader::new(stream));
        assert!(client.line().starts_with("INFO"));
        client
            .0
            .get_mut()
            .write_all(b"CONNECT {\"verbose\":false}\r\n")
            .unwrap();
        client.assert_alive();
        client
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

pub(crate) struct Route {
    pub(crate) rid: u64,
    peer: String,
    pub(crate) remote: SocketAddr,
}

pub(crate) struct Client(BufReader<TcpStream>);

impl Client {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line
    }

    pub(crate) fn assert_alive(&mut self) {
        self.0.get_mut().write_all(b"PING\r\n").unwrap();
        for _ in 0..20 {
            match self.line().as_str() {
                "PONG\r\n" => return,
                "" => panic!("the server closed a client's connection"),
                _info_or_ping => {}
            }
        }
        panic!("no PONG in 20 lines");
    }
}
