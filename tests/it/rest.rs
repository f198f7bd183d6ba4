//! The REST API behind a real HTTP front: the example of the hosted product's documents.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Stdio};

use serde_json::{json, Value};

use super::support::definitions::wait_idle;
use super::support::{ready_cluster, Cluster};

const GATEWAY: &str = include_str!("support/rest_gateway.py");

/// The gateway as a child process; ends with the test.
struct Gateway {
    process: Child,
    port: u16,
}

impl Gateway {
    fn start(cluster: &Cluster) -> Self {
        let psql = cluster.client_program("psql", "postgres");
        let mut python = std::process::Command::new("python3");
        python.args(["-c", GATEWAY]).env("PSQL", psql.get_program());
        for (name, value) in psql.get_envs() {
            if let Some(value) = value {
                python.env(name, value);
            }
        }
        let mut process = python
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is there");
        let mut port = String::new();
        let stdout = process.stdout.take().expect("stdout is piped");
        BufReader::new(stdout).read_line(&mut port).unwrap();
        let port = port.trim().parse().expect("the gateway announces its port");
        Self { process, port }
    }

    /// One request; the answer's status and body.
    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        let length = body.len();
        let request = format!("{method} {path} HTTP/1.0\r\ncontent-length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status in {answer:?}"));
        (status, serde_json::from_str(body).unwrap_or_default())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn create_event(gateway: &Gateway, events: &str, kind: &str) -> Value {
    let body = json!({ "EventType": format!("table.record{kind}"), "ObjectName": "MyCustomers" });
    let (status, event) = gateway.ask("POST", events, &body.to_string());
    assert_eq!(status, 201, "{event}");
    event
}

#[test]
fn the_example_of_the_documents_works_over_http() {
    let (cluster, receiver) = ready_cluster("rest");
    cluster.sql(r#"create table "MyCustomers" (id integer primary key, name text)"#);
    let gateway = Gateway::start(&cluster);
    let urls = ["/ok/89lnuuy6999ss", "/ok/79hjy76788hbk"].map(|path| receiver.url(path));
    let wanted = json!({
        "Name": "MyTestWebhook",
        "Description": "Send messages whenever changes in table MyCustomers occur",
        "OutgoingUrls": urls,
        "CallThrottling": 8
    });
    let (status, webhook) = gateway.ask("POST", "/v2/outgoingWebhooks", &wanted.to_string());
    assert_eq!(status, 201, "{webhook}");
    for (property, value) in wanted.as_object().unwrap() {
        assert_eq!(&webhook[property], value, "{property}");
    }
    assert_eq!(webhook["Status"], "Active");
    assert_eq!(webhook["Secret"].as_str().map(str::len), Some(50));
    let id = webhook["Id"].as_str().expect("Id is a string");
    let one = format!("/v3/outgoingWebhooks/{id}");
    let events = format!("{one}/events");

    let update = create_event(&gateway, &events, "Update");
    for kind in ["Insert", "Delete"] {
        create_event(&gateway, &events, kind);
    }
    cluster.sql(
        r#"insert into "MyCustomers" values (1, 'Ann');
           update "MyCustomers" set name = 'Anna';
           update "MyCustomers" set name = 'Anna';
           delete from "MyCustomers""#,
    );
    wait_idle(&cluster);

    let (status, now) = gateway.ask("GET", &one, "");
    assert_eq!(status, 200);
    let counts = ["Events", "Messages", "Calls", "Errors"].map(|name| now[name].as_i64());
    assert_eq!(counts, [3, 3, 6, 0].map(Some));
    assert!(now.get("Secret").is_none());
    let update_id = update["Id"].as_str().expect("Id is a string");
    let (_, update) = gateway.ask("GET", &format!("{events}/{update_id}"), "");
    assert_eq!(update["Messages"], 1);
    assert_eq!(update["Calls"], 2);
    for url in ["/ok/89lnuuy6999ss", "/ok/79hjy76788hbk"] {
        assert_eq!(receiver.count(url).requests, 3);
    }

    assert_eq!(
        gateway.ask("GET", &events, "").1.as_array().map(Vec::len),
        Some(3)
    );
    assert_eq!(gateway.ask("DELETE", &one, "").0, 204);
    assert_eq!(gateway.ask("GET", &one, "").0, 404);
    let listed = gateway.ask("GET", "/v3/outgoingWebhooks", "");
    assert_eq!(listed, (200, json!([])));
    cluster.sql(r#"insert into "MyCustomers" values (2, 'Bob')"#);
    wait_idle(&cluster);
    assert_eq!(receiver.count("/ok").requests, 6);
}

#[test]
fn what_is_wrong_is_answered_and_changes_nothing() {
    let (cluster, _receiver) = ready_cluster("rest-errors");
    let gateway = Gateway::start(&cluster);
    let post = |body: &str| gateway.ask("POST", "/v3/outgoingWebhooks", body);
    for body in [
        "{}",
        "[]",
        "7",
        r#"{"Name": "x", "OutgoingUrls": ["https://x.example/"], "Foo": 1}"#,
    ] {
        let (status, answer) = post(body);
        assert_eq!(status, 400, "{body}: {answer}");
        assert!(answer["Message"].is_string(), "{body}: {answer}");
    }
    assert_eq!(gateway.ask("GET", "/v3/nowhere", "").0, 404);
    assert_eq!(gateway.ask("PATCH", "/v3/outgoingWebhooks", "").0, 405);
    assert_eq!(
        gateway.ask("GET", "/v3/outgoingWebhooks", ""),
        (200, json!([]))
    );
}
