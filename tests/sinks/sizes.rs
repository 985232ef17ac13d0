//! No client makes an alert longer than a receiver takes: padded requests and long lists, in every format and sink.

use pullwatch::internals::daemon::sink::{Body, File, Format, Http, Kind, Secret, Syslog, Transport};
use pullwatch::internals::detection::alert::{Priority, StoredAlert};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};

use crate::rig::{HOSTILE, Memory, Rig, config};

const FORMATS: [Format; 3] = [Format::Falco, Format::Cef, Format::Text];

/// An alert about this number of credentials and with a text of this length from the request.
fn long(seq: i64, credentials: usize, padding: &str) -> StoredAlert {
    let secrets: Vec<String> =
        (0..credentials).map(|i| format!("team-{i}/registry-credential-{i}")).collect();
    let uri =
        format!("/api/v1/secrets?fieldSelector=type=kubernetes.io/dockerconfigjson,metadata.name!={padding}");
    let output = format!(
        "User listed registry credentials (user=alice target=secrets uri={uri} secrets={})",
        secrets.join(",")
    );
    let alert = json!({
        "hostname": "node", "output": output, "output_fields": {"evt.time": 1, "ka.uri": uri, "registry.secrets": secrets},
        "priority": "Warning", "rule": "Registry Credentials Listed", "source": "k8s_audit", "tags": ["T1552.007"],
        "time": "2026-11-23T03:45:32.270783000Z", "id": format!("{seq:032x}"), "rule_set": "0",
        "event": {"auditID": "a", "verb": "list", "user": {"username": "alice"}, "sourceIPs": ["10.0.0.1"],
            "userAgent": padding, "objectRef": {"resource": "secrets"}, "code": 200, "requestURI": uri},
        "registry": {"exposure": "credentials", "scope": "cluster", "secrets": secrets,
            "hosts": ["registry.example.com", "ghcr.io"], "usernames": ["robot"]},
    });
    let mut bytes = Vec::new();
    pullwatch::internals::detection::shorten::write(&alert, &mut bytes);
    StoredAlert {
        seq,
        id: u128::try_from(seq).unwrap().to_be_bytes(),
        time: 1_795_405_532_270_783_000,
        stored: 1_795_405_532_280_000_000,
        rule: "Registry Credentials Listed".to_owned(),
        priority: Priority::Warning,
        actor: "alice".to_owned(),
        target: "secrets".to_owned(),
        json: bytes,
        message: output,
    }
}

fn alerts() -> Vec<StoredAlert> {
    let padding = "a".repeat(400_000);
    let hostile = HOSTILE.repeat(10_000);
    vec![
        long(1, 1, &padding),
        long(2, 100, ""),
        long(3, 5000, ""),
        long(4, 5000, &padding),
        long(5, 1, &hostile),
    ]
}

/// Checks that a message says who did what, and which registries to rotate.
fn check(message: &str, format: Format, seq: i64, max_len: usize) {
    assert!(message.len() <= max_len, "{seq} {format:?}: {} > {max_len}", message.len());
    assert!(!message.chars().any(pullwatch::internals::text::escape::is_disruptive), "{seq} {format:?}");
    assert!(message.contains("alice") && message.contains("secrets"), "{seq} {format:?}: {message}");
    match format {
        Format::Falco => {
            let value: Value = serde_json::from_str(message).unwrap();
            assert_eq!(value["event"]["user"]["username"], "alice");
            assert_eq!(value["event"]["verb"], "list");
            assert_eq!(value["registry"]["exposure"], "credentials");
            assert_eq!(value["registry"]["hosts"], json!(["registry.example.com", "ghcr.io"]));
            assert_eq!(value["id"], format!("{seq:032x}"));
            let whole = max_len > 10_000 && seq == 2;
            assert_eq!(value["shortened"].is_null(), whole, "{seq} {message}");
        }
        Format::Cef => assert!(message.starts_with("CEF:0|pullwatch|pullwatch|"), "{message}"),
        _ => {}
    }
}

#[tokio::test]
async fn files_hold_no_line_beyond_the_limit() {
    for format in FORMATS {
        for max_len in [64 << 10, 8 << 10, 2048] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("alerts");
            let mut settings = config(Kind::File(File { path: path.clone(), format, ..File::default() }));
            settings.max_message = Some(max_len);
            let rig = Rig::start(settings, &Memory::with(alerts()));
            rig.reaches(5).await;
            assert!(rig.count("truncated_total", None) >= 3 || format != Format::Falco);
            rig.stop().await.unwrap();
            let text = std::fs::read_to_string(path).unwrap();
            assert_eq!(text.lines().count(), 5);
            for (line, seq) in text.lines().zip(1..) {
                check(line, format, seq, max_len);
            }
        }
    }
}

#[tokio::test]
async fn syslog_messages_have_at_most_8_kib_on_every_transport() {
    for format in FORMATS {
        let datagrams = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = datagrams.local_addr().unwrap().to_string();
        let settings =
            config(Kind::Syslog(Syslog { transport: Transport::Udp(address), format, ..Syslog::default() }));
        let rig = Rig::start(settings, &Memory::with(alerts()));
        let mut buffer = vec![0; 65_536];
        for seq in 1..=5 {
            let length = datagrams.recv(&mut buffer).await.unwrap();
            check_syslog(std::str::from_utf8(&buffer[..length]).unwrap(), format, seq);
        }
        rig.reaches(5).await;
        rig.stop().await.unwrap();

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let settings =
            config(Kind::Syslog(Syslog { transport: Transport::Tcp(address), format, ..Syslog::default() }));
        let rig = Rig::start(settings, &Memory::with(alerts()));
        let (mut stream, _) = listener.accept().await.unwrap();
        for seq in 1..=5 {
            let mut length = 0;
            loop {
                match stream.read_u8().await.unwrap() {
                    b' ' => break,
                    digit => length = length * 10 + usize::from(digit - b'0'),
                }
            }
            let mut message = vec![0; length];
            stream.read_exact(&mut message).await.unwrap();
            check_syslog(std::str::from_utf8(&message).unwrap(), format, seq);
        }
        rig.reaches(5).await;
        rig.stop().await.unwrap();
    }
}

fn check_syslog(message: &str, format: Format, seq: i64) {
    assert!(message.len() <= 8192, "{}", message.len());
    assert!(
        message.contains(&format!("id=\"{seq:032x}\"")) && message.contains("actor=\"alice\""),
        "{message}"
    );
    let (_, text) = message.split_once("\"] ").unwrap();
    check(text, format, seq, 8192);
}

#[tokio::test]
async fn requests_are_shortened_below_an_unknown_limit_of_the_receiver() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let received = tokio::spawn(async move {
        let mut bodies = Vec::new();
        while bodies.len() < 5 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            let body_start = loop {
                stream.read_buf(&mut request).await.unwrap();
                if let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") {
                    break end + 4;
                }
            };
            let head = String::from_utf8_lossy(&request[..body_start]).to_ascii_lowercase();
            let length: usize = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .unwrap()
                .trim()
                .parse()
                .unwrap();
            while request.len() < body_start + length {
                stream.read_buf(&mut request).await.unwrap();
            }
            let status = if length > 10_000 { "413 Payload Too Large" } else { "200 OK" };
            if length <= 10_000 {
                bodies.push(String::from_utf8(request.split_off(body_start)).unwrap());
            }
            let response = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            stream.write_all(response.as_bytes()).await.unwrap();
        }
        bodies
    });
    let http = Http { url: Secret::new(format!("http://{address}/")), body: Body::Alert, ..Http::default() };
    // As they are stored.
    let alerts =
        alerts().into_iter().map(|alert| pullwatch::internals::detection::shorten::stored(&alert, 64 << 10));
    let rig = Rig::start(config(Kind::Http(http)), &Memory::with(alerts));
    let bodies = tokio::time::timeout(crate::wait::WAIT_TIMEOUT, received).await.unwrap().unwrap();
    rig.reaches(5).await;
    assert_eq!(rig.count("dead_letters_total", Some("rejected")), 0);
    rig.stop().await.unwrap();
    for (body, seq) in bodies.iter().zip(1..) {
        check(body, Format::Falco, seq, 10_000);
    }
}
