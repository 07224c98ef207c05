//! The API of a host over HTTP: who is answered, by which paths, and how operations and failures look.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use crate::serve::serving;
use crate::setup::{local, show, text};
use crate::support::{World, wait_until};

pub fn announced(world: &World) -> Value {
    let text = std::fs::read_to_string(world.path().join("data/run/host.json")).expect("announced");
    serde_json::from_str(&text).expect("JSON")
}

/// Sends one request to a host with its token, byte by byte as given, and returns the status and the body as JSON.
pub fn http(host: &Value, method: &str, path: &str, headers: &str, body: &str) -> (u16, Value) {
    let (status, _, body) = http_with_head(host, method, path, headers, body);
    (status, serde_json::from_str(&body).expect("JSON"))
}

/// Sends one request, and returns the status, the head and the body.
fn http_with_head(host: &Value, method: &str, path: &str, headers: &str, body: &str) -> (u16, String, String) {
    let url = text(&host["url"]);
    let address = url.strip_prefix("http://").expect("a URL");
    let token = if headers.contains("Authorization:") {
        String::new()
    } else {
        format!("Authorization: Bearer {}\r\n", text(&host["token"]))
    };
    let mut stream = TcpStream::connect(address).expect("connected");
    let length = body.len();
    let host = if headers.contains("Host:") {
        String::new()
    } else {
        format!("Host: {address}\r\n")
    };
    let content = if headers.contains("Content-Type:") {
        ""
    } else {
        "Content-Type: application/json\r\n"
    };
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\n{host}{content}Content-Length: {length}\r\nConnection: close\r\n{token}{headers}\r\n{body}"
    )
    .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let status = answer.split(' ').nth(1).expect("a status").parse().expect("a number");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
    (status, head.to_ascii_lowercase(), body.to_owned())
}

#[test]
fn a_token_is_demanded_and_found_by_the_users_own_commands() {
    let world = World::new();
    let refused = world.run(&["serve", "--listen", "0.0.0.0:0"]).exits(2);
    assert_eq!(
        refused.stderr,
        "error: --listen 0.0.0.0:0: other machines can reach this address, and need a token that they know; set REGRAFT_TOKEN or --token-file, or listen on 127.0.0.1\n"
    );
    let host = world.serve(&[]);
    let (api, token_file) = (announced(&world), world.path().join("data/tokens/host"));
    let (url, token) = (text(&api["url"]), text(&api["token"]));
    assert_eq!(std::fs::read_to_string(&token_file).expect("there"), token);
    for private in [&token_file, &world.path().join("data/run/host.json")] {
        let mode = std::fs::metadata(private).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", private.display());
    }
    for args in [
        &["list"][..],
        &["list", "--host", &url],
        &["list", "--host", &url.replace("127.0.0.1", "localhost")],
    ] {
        assert_eq!(world.run(args).exits(0).stdout, "No running jobs.\n", "{args:?}");
    }
    let said = "this host demands a token, and the request has not brought the right one: set REGRAFT_TOKEN to the host's, or send `Authorization: Bearer TOKEN`";
    let other = World::new();
    for (world, args) in [
        (&world, &["list", "--host", &url, "--token", "wrong"][..]),
        (&other, &["list", "--host", &url]),
    ] {
        assert_eq!(world.run(args).exits(1).stderr, format!("error: {said}\n"), "{args:?}");
    }
    assert_eq!(
        other.run(&["list", "--host", &url, "--token", &token]).exits(0).stdout,
        "No running jobs.\n"
    );
    // Before anything is known of the request, a body among it.
    for (method, path, body) in [
        ("GET", "/api/v1/jobs", ""),
        ("GET", "/jobs", ""),
        ("GET", "/nowhere", ""),
        ("POST", "/api/v1/jobs", "no JSON"),
        ("PUT", "/api/v1/modules", "no component"),
        ("DELETE", "/api/v1/jobs", ""),
    ] {
        let (status, head, body) = http_with_head(&api, method, path, "Authorization: Bearer wrong\r\n", body);
        let body: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(
            (status, &body["message"], &body["status"]),
            (401, &json!(said), &json!(401)),
            "{method} {path}"
        );
        assert!(head.contains("www-authenticate: bearer realm=\"regraft\""), "{head}");
        assert!(head.contains("content-type: application/problem+json"), "{head}");
    }
    host.terminate();
    host.end().exits(0);
    assert!(!token_file.exists());
    // A given one is kept, and another one only reads.
    world.write("token", "secret\n");
    world.write("read", "see\n");
    let host = world.serve(&["--token-file", "token", "--read-token-file", "read"]);
    let api = announced(&world);
    assert_eq!(api["token"], "secret");
    let with = |token: &str, method: &str, path: &str| {
        let header = format!("Authorization: Bearer {token}\r\n");
        http(&api, method, path, &header, "{}").0
    };
    assert_eq!(with("secret", "GET", "/api/v1/jobs"), 200);
    assert_eq!(with("see", "GET", "/api/v1/jobs"), 200);
    assert_eq!(with("see", "POST", "/api/v1/jobs/0/cancel"), 403);
    assert_eq!(with("secret", "POST", "/api/v1/jobs/0/cancel"), 404);
    drop(host);
}

#[test]
fn the_paths_of_version_0_1_lead_to_those_of_today() {
    let world = World::new();
    let host = world.serve(&[]);
    let api = announced(&world);
    for (method, path, body) in [
        ("GET", "/jobs", ""),
        ("GET", "/host?x=1", ""),
        ("POST", "/jobs/0/savepoints?wait=true", "{}"),
        ("PUT", "/modules", "no component"),
    ] {
        let (status, head, _) = http_with_head(&api, method, path, "", body);
        assert_eq!(status, 308, "{method} {path}");
        assert!(head.contains(&format!("location: /api/v1{path}\r\n")), "{head}");
    }
    assert_eq!(http(&api, "GET", "/api/v1/nowhere", "", "").0, 404);
    assert_eq!(http(&api, "GET", "/jobsx", "", "").0, 404);
    drop(host);
}

#[test]
fn over_http_a_savepoint_is_triggered_and_asked_about() {
    let world = World::new();
    let (host, id) = serving(&world);
    let api = announced(&world);
    let request = json!({ "dir": world.path().join("there") }).to_string();
    let (status, triggered) = http(&api, "POST", &format!("/api/v1/jobs/{id}/savepoints"), "", &request);
    assert_eq!(status, 202);
    let trigger = format!("/api/v1/jobs/{id}/savepoints/{}", text(&triggered["trigger_id"]));
    let mut answer = Value::Null;
    wait_until("the savepoint", || {
        answer = http(&api, "GET", &trigger, "", "").1;
        answer["status"] != "IN_PROGRESS"
    });
    assert_eq!(answer["status"], "COMPLETED");
    let path = text(&answer["path"]);
    let answer_bytes = answer["bytes"].clone();
    assert!(local(&path).starts_with(world.path().join("there")), "{answer}");
    show(&world, &path);
    let (_, triggered) = http(
        &api,
        "POST",
        &format!("/api/v1/jobs/{id}/savepoints"),
        "",
        r#"{"dir":"/dev/null/x"}"#,
    );
    let trigger = format!("/api/v1/jobs/{id}/savepoints/{}", text(&triggered["trigger_id"]));
    wait_until("a failure", || {
        answer = http(&api, "GET", &trigger, "", "").1;
        answer["status"] == "FAILED"
    });
    let cause = text(&answer["cause"]["message"]);
    assert!(cause.starts_with("the savepoint directory cannot be used: "), "{cause}");
    // The same as an operation, whose end a request waits for.
    let (status, head, body) = http_with_head(&api, "POST", &format!("/api/v1/jobs/{id}/savepoints"), "", &request);
    assert_eq!(status, 202);
    let begun: Value = serde_json::from_str(&body).expect("JSON");
    let place = format!("/api/v1/jobs/{id}/operations/{}", text(&begun["trigger_id"]));
    assert!(head.contains(&format!("location: {place}\r\n")), "{head}");
    let ended = http(&api, "GET", &format!("{place}?wait=30"), "", "").1;
    assert_eq!(
        (&ended["status"], &ended["kind"], &ended["job_id"]),
        (&json!("COMPLETED"), &json!("savepoint"), &json!(id))
    );
    assert!(local(&text(&ended["result"]["path"])).exists());
    world
        .run(&["savepoint", "-d", &text(&ended["result"]["path"])])
        .exits(0);
    assert_eq!(
        http(&api, "GET", &format!("/api/v1/jobs/{id}/savepoints/0"), "", "").0,
        404
    );
    assert_eq!(http(&api, "GET", "/nowhere", "", "").0, 404);
    // Every mistake in a request is reported like any other failure.
    let savepoints = format!("/api/v1/jobs/{id}/savepoints");
    let wrong = [
        (
            "POST",
            savepoints.as_str(),
            r#"{"dirr":1}"#,
            400,
            "unknown field `dirr`",
        ),
        (
            "POST",
            "/api/v1/jobs",
            "no JSON",
            400,
            "the request's body is not the JSON that this path takes: ",
        ),
        ("DELETE", "/api/v1/jobs", "", 405, "this path has no such method"),
        ("GET", &format!("/api/v1/jobs/{id}/logs?lines=many"), "", 400, "lines"),
    ];
    for (method, path, body, status, message) in wrong {
        let (answered, said) = http(&api, method, path, "", body);
        assert_eq!((answered, &said["kind"]), (status, &json!("usage")), "{said}");
        assert!(text(&said["message"]).contains(message), "{said}");
    }
    // Requests from web pages are refused.
    assert_eq!(
        http(&api, "GET", "/api/v1/jobs", "Origin: http://evil.example\r\n", "").0,
        400
    );
    // The same over the command line: listed, and disposed of.
    let mut list = Value::Null;
    wait_until("a checkpoint is listed", || {
        list = world.run(&["list", "--snapshots", "words", "--json"]).exits(0).json();
        let rows = list["snapshots"].as_array().expect("rows");
        rows.iter().any(|row| row["kind"] == "checkpoint")
    });
    let rows = list["snapshots"].as_array().expect("rows");
    let of = |kind: &'static str| rows.iter().filter(move |row| row["kind"] == kind);
    let saved: Vec<&Value> = of("savepoint").collect();
    assert_eq!(
        (saved.len(), &saved[0]["path"], &saved[0]["owner"], &saved[0]["trigger"]),
        (1, &json!(path), &json!("user"), &json!("manual"))
    );
    assert_eq!(saved[0]["bytes"], answer_bytes, "as it was told when it was taken");
    let checkpoint = of("checkpoint").next().expect("one is retained");
    assert_eq!(
        (&checkpoint["owner"], &checkpoint["trigger"]),
        (&json!("host"), &json!("periodic"))
    );
    let table = world.run(&["list", "--snapshots", "words"]).exits(0).stdout;
    assert!(
        table.starts_with("KIND       OWNER TRIGGER          ID  COMPLETED "),
        "{table}"
    );
    let disposed = world.run(&["savepoint", "-d", &path]).exits(0);
    assert_eq!(disposed.stdout, format!("Savepoint '{path}' disposed.\n"));
    assert!(!local(&path).exists());
    let gone = world.run(&["savepoint", "-d", &path]).exits(1);
    assert!(
        gone.stderr.contains("does not exist") || gone.stderr.contains("there is no"),
        "{}",
        gone.stderr
    );
    // The body of a savepoint request may be empty, and its content type is ignored then.
    let (status, triggered) = http(&api, "POST", &savepoints, "Content-Type: text/plain\r\n", "");
    assert_eq!(
        (status, triggered["trigger_id"].is_string()),
        (202, true),
        "{triggered}"
    );
    drop(host);
}
