//! Clients without a token, and with one: those that say nothing, say half of something, or send more than anyone needs.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Attached, World};
use crate::watched::{MIB_MAX, peak};

/// Limit of the time of an answer to a client of the host beside an attack.
const SOON: Duration = Duration::from_secs(2);

/// A host under attack.
struct Target {
    host: Attached,
    address: String,
    token: String,
}

impl Target {
    fn new(world: &World) -> Self {
        Self::of(world, world.serve(&[]))
    }

    fn of(world: &World, host: Attached) -> Self {
        let text = std::fs::read_to_string(world.path().join("data/run/host.json")).expect("announced");
        let api: Value = serde_json::from_str(&text).expect("JSON");
        let member = |name: &str| api[name].as_str().expect("a text").to_owned();
        Self {
            host,
            address: member("url").replace("http://", ""),
            token: member("token"),
        }
    }

    /// Sends the head of a request and a body, and returns the status of the answer; `None` where the connection was closed
    /// before.
    fn send(&self, head: &str, body: &[u8]) -> Option<u16> {
        let mut stream = TcpStream::connect(&self.address).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
        stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
        stream.write_all(body).ok()?;
        let mut answer = vec![];
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).split(' ').nth(1)?.parse().ok()
    }

    /// Returns the head of a request with the token.
    fn known(&self, request: &str, length: usize) -> String {
        let token = &self.token;
        format!(
            "{request} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: Bearer {token}\r\nContent-Length: {length}\r\n"
        )
    }

    /// Checks that the host answers its own client soon, and stays small.
    #[track_caller]
    fn lives(&self) {
        let began = Instant::now();
        assert_eq!(self.send(&self.known("GET /api/v1/jobs", 0), b""), Some(200));
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
        let peak = peak(&format!("/proc/{}/status", self.host.pid()));
        assert!(peak < MIB_MAX, "{peak} MiB were held");
    }
}

#[test]
fn connections_that_say_nothing_give_way() {
    let world = World::new();
    let target = Target::new(&world);
    let mut silent: Vec<TcpStream> = (0..600)
        .map(|number| {
            let mut stream = TcpStream::connect(&target.address).expect("connected");
            if number % 2 == 0 {
                stream
                    .write_all(b"POST /api/v1/jobs HTTP/1.1\r\nContent-Le")
                    .expect("sent");
            }
            stream
        })
        .collect();
    target.lives();
    assert_eq!(world.run(&["list"]).exits(0).stdout, "No running jobs.\n");
    let oldest = silent.first_mut().expect("one");
    oldest.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    assert!(matches!(oldest.read(&mut [0; 16]), Ok(0) | Err(_)));
    // A host with nothing but such connections ends at once.
    target.host.terminate();
    target.host.end().exits(0);
}

/// Clients with the token for reading send one request after the other, and read no answer.
#[test]
fn readers_that_read_nothing_do_not_keep_the_admin_out() {
    let world = World::new();
    let token = "0123456789abcdef-for-reading";
    let file = world.path().join("read-token");
    std::fs::write(&file, token).expect("written");
    let target = Target::of(
        &world,
        world.serve(&["--read-token-file", file.to_str().expect("text")]),
    );
    let request = format!("GET /api/v1/host HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n");
    let many = request.repeat(64);
    let _deaf: Vec<TcpStream> = (0..300)
        .map(|_| {
            let mut stream = TcpStream::connect(&target.address).expect("connected");
            stream.set_nonblocking(true).expect("set");
            while stream.write(many.as_bytes()).is_ok_and(|written| written == many.len()) {}
            stream
        })
        .collect();
    target.lives();
    assert_eq!(world.run(&["list"]).exits(0).stdout, "No running jobs.\n");
    target.host.terminate();
    target.host.end().exits(0);
}

#[test]
fn requests_are_bounded() {
    let world = World::new();
    let target = Target::new(&world);
    let (unknown, large) = ("PUT /api/v1/modules HTTP/1.1\r\nHost: h\r\n", vec![b'x'; 1 << 20]);
    // Without a token: the answer arrives although no one takes the body.
    let head = format!("{unknown}Connection: close\r\nContent-Length: 900000\r\n");
    assert_eq!(target.send(&head, &large[..900_000]), Some(401));
    let head = format!("GET /api/v1/jobs HTTP/1.1\r\n{}", "A: b\r\n".repeat(10_000));
    assert_eq!(target.send(&head, b""), Some(431));
    let head = format!("GET /{} HTTP/1.1\r\n", "x".repeat(5 << 20));
    assert!(matches!(target.send(&head, b""), None | Some(414 | 431)));
    // With one.
    for (request, length, status) in [
        ("PUT /api/v1/modules", 1 << 40, 413),
        ("POST /api/v1/jobs", 64 << 20, 413),
        ("POST /api/v1/jobs/0/cancel", 900_000, 404),
    ] {
        assert_eq!(
            target.send(&target.known(request, length), &large[..900_000]),
            Some(status),
            "{request}"
        );
    }
    let deep = "[".repeat(1 << 20);
    assert_eq!(
        target.send(&target.known("POST /api/v1/jobs", deep.len()), deep.as_bytes()),
        Some(400)
    );
    target.lives();
    drop(target);
}

/// A job file of the size that a submission may have, of whatever takes longest to read.
#[test]
fn job_files_are_bounded() {
    let world = World::new();
    let target = Target::new(&world);
    let source = |number: u32| format!("[[source]]\nuid = \"s{number}\"\nconnector = \"generator\"\n");
    let sink =
        |number: u32| format!("[[sink]]\nuid = \"k{number}\"\nconnector = \"print\"\ninputs = [\"x{number}\"]\n");
    let nodes: String = (0..5_000).map(|number| source(number) + &sink(number)).collect();
    let keys: String = (0..90_000).map(|number| format!("k{number}=1\n")).collect();
    std::thread::scope(|scope| {
        for text in [&nodes, &keys, &nodes, &keys] {
            let target = &target;
            scope.spawn(move || {
                let body = serde_json::json!({ "file": "job.toml", "text": text, "base_dir": "/", "layers": {}, "modules": {} });
                let body = body.to_string();
                let status = target.send(&target.known("POST /api/v1/jobs", body.len()), body.as_bytes());
                assert_eq!(status, Some(400));
            });
        }
        std::thread::sleep(Duration::from_millis(100));
        target.lives();
    });
    target.host.terminate();
    target.host.end().exits(0);
}
