//! A real OpenSearch takes the alerts. Maven copies it to `target/opensearch` (see `.ci/run`); without it the test does nothing.
//! The index template is the one of the documentation.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::common::{free_port, project, wait_for};
use crate::rig::{Daemon, Process, serve, try_get};

const STREAM: &str = "logs-pullwatch.alert-default";
const REFUSING_STREAM: &str = "logs-pullwatch.refusing-default";

struct OpenSearch {
    jars: PathBuf,
    home: tempfile::TempDir,
    address: String,
    process: Option<Process>,
}

impl OpenSearch {
    /// `None` if it is not installed.
    fn start() -> Option<Self> {
        let jars = project("target/opensearch");
        if !jars.is_dir() {
            assert!(
                std::env::var_os("PULLWATCH_REQUIRE_OPENSEARCH").is_none(),
                "OpenSearch is not installed"
            );
            eprintln!("skipped, OpenSearch is not installed");
            return None;
        }
        let home = tempfile::tempdir().unwrap();
        let (port, transport) = (free_port(), free_port());
        let address = format!("127.0.0.1:{port}");
        let module = home.path().join("modules/transport-netty4");
        let config = home.path().join("config");
        for dir in [&module, &config, &home.path().join("plugins")] {
            fs::create_dir_all(dir).unwrap();
        }
        let module_jars = Self::jars(&jars, true);
        for jar in &module_jars {
            fs::copy(jar, module.join(jar.file_name().unwrap())).unwrap();
        }
        let name = "transport-netty4-client-";
        let version = module_jars
            .iter()
            .find_map(|jar| jar.file_stem()?.to_str()?.strip_prefix(name).map(str::to_owned))
            .unwrap();
        fs::write(
            module.join("plugin-descriptor.properties"),
            format!(
                "name=transport-netty4\ndescription=HTTP\nversion={version}\nopensearch.version={version}\njava.version=11\nclassname=org.opensearch.transport.Netty4Plugin\n"
            ),
        )
        .unwrap();
        fs::write(
            module.join("plugin-security.policy"),
            "grant { permission java.net.SocketPermission \"*\", \"accept,connect,resolve\"; };\n",
        )
        .unwrap();
        fs::write(
            config.join("opensearch.yml"),
            format!(
                "discovery.type: single-node\nnetwork.host: 127.0.0.1\nhttp.port: {port}\ntransport.port: {transport}\n\
                 cluster.routing.allocation.disk.threshold_enabled: false\n"
            ),
        )
        .unwrap();
        fs::write(config.join("log4j2.properties"), "rootLogger.level = off\n").unwrap();
        let mut server = OpenSearch { jars, home, address, process: None };
        server.restart();
        Some(server)
    }

    /// The jars of the module for HTTP, or those of the server.
    fn jars(dir: &Path, are_of_module: bool) -> Vec<PathBuf> {
        let is_of_module = |jar: &PathBuf| {
            let name = jar.file_name().unwrap().to_string_lossy();
            name.starts_with("netty-") || name.starts_with("transport-netty4-")
        };
        let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        files
            .filter(|path| path.extension().is_some_and(|end| end == "jar"))
            .filter(|jar| is_of_module(jar) == are_of_module)
            .collect()
    }

    fn kill(&mut self) {
        self.process = None;
    }

    fn restart(&mut self) {
        self.kill();
        let home = self.home.path().display();
        let mut command = Command::new("java");
        command.args(["-Xms256m", "-Xmx256m", "-XX:+UseSerialGC", "-Djava.security.manager=allow"]);
        // It refuses to run as root, which it can find out only by native calls.
        command.args(["-Djna.nosys=true", "-Djna.noclasspath=true", "-Djna.boot.library.path=/nonexistent"]);
        command
            .arg(format!("-Dopensearch.path.home={home}"))
            .arg(format!("-Dopensearch.path.conf={home}/config"));
        command.arg("-cp").arg(std::env::join_paths(Self::jars(&self.jars, false)).unwrap());
        command.arg("org.opensearch.bootstrap.OpenSearch");
        self.process = Some(serve(&mut command, &self.address, "/"));
    }

    /// Status and body of the response; `None` if there is none.
    fn try_call(&self, method: &str, path: &str, body: &Value) -> Option<(u16, Value)> {
        let mut stream = TcpStream::connect(&self.address).ok()?;
        let body = if body.is_null() { String::new() } else { body.to_string() };
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, serde_json::from_str(body).ok()?))
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, answer) = self.try_call(method, path, body).unwrap();
        assert_eq!(status, 200, "{method} {path}: {answer}");
        answer
    }

    /// Who read a credential how often, by the query of the documentation; `None` while the server starts.
    fn readers(&self, credential: &str) -> Option<Vec<(String, u64)>> {
        let query =
            format!("pullwatch.credential:\"{credential}\" OR pullwatch.registry.secrets:\"{credential}\"");
        self.try_call("POST", &format!("/{STREAM}/_refresh"), &Value::Null)?;
        let (status, answer) = self.try_call(
            "POST",
            &format!("/{STREAM}/_search"),
            &json!({"size": 0, "query": {"query_string": {"query": query}},
                "aggs": {"reads": {"terms": {"field": "user.name", "size": 100, "order": {"_key": "asc"}}}}}),
        )?;
        let buckets = answer["aggregations"]["reads"]["buckets"].as_array().filter(|_| status == 200)?;
        let reader =
            |bucket: &Value| Some((bucket["key"].as_str()?.to_owned(), bucket["doc_count"].as_u64()?));
        buckets.iter().map(reader).collect()
    }

    fn wait_for_readers(&self, credential: &str, expected: &[(&str, u64)]) {
        let expected: Vec<_> = expected.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        wait_for(credential, || self.readers(credential).is_some_and(|readers| readers == expected));
    }
}

fn metric(daemon: &Daemon, name: &str, labels: &str) -> u64 {
    let (_, text) = try_get(&daemon.address, "/metrics").unwrap();
    let line = format!("pullwatch_sink_{name}{{{labels}}} ");
    text.lines()
        .find_map(|text| text.strip_prefix(&line))
        .unwrap_or_else(|| panic!("{line}"))
        .parse()
        .unwrap()
}

/// The index template of the documentation.
fn template() -> Value {
    let page = fs::read_to_string(project("docs/receivers/elasticsearch.md")).unwrap();
    let (_, block) = page.split_once("```json\n").unwrap();
    serde_json::from_str(block.split_once("```").unwrap().0).unwrap()
}

#[test]
fn a_data_stream_of_opensearch_says_who_read_which_credential() {
    let Some(mut server) = OpenSearch::start() else { return };
    let template = template();
    server.call("PUT", "/_index_template/pullwatch", &template);
    // The same for a second data stream, whose mapping refuses the user agent of most requests.
    let mut refusing = template;
    refusing["index_patterns"] = json!([REFUSING_STREAM]);
    refusing["priority"] = json!(501);
    refusing["template"]["mappings"]["properties"]["user_agent"] =
        json!({"properties": {"original": {"type": "long"}}});
    server.call("PUT", "/_index_template/refusing", &refusing);

    let url = format!("http://{}", server.address);
    let retry = "retry: {initial: 20ms, max: 200ms}";
    let sinks = format!(
        "- {{type: elasticsearch, name: elastic, url: '{url}', data_stream: {STREAM}, gzip: true, {retry}}}\n\
         - {{type: elasticsearch, name: refusing, url: '{url}', data_stream: {REFUSING_STREAM}, {retry}}}"
    );
    let mut daemon = Daemon::start(&sinks, "");
    // What looks like a date in the first document must not make later ones invalid.
    daemon.log(&crate::common::event("a1", "get", "registry-1").replace("curl/8", "2026/11/23"));
    server.wait_for_readers("prod/registry-1", &[("mallory", 1)]);
    daemon.read("a2", "mallory", "registry-1");
    daemon.read("a3", "eve", "registry-1");
    daemon.log(&crate::common::event("a4", "get", "registry-2").replace("curl/8", "7"));
    server.wait_for_readers("prod/registry-1", &[("eve", 1), ("mallory", 2)]);
    server.wait_for_readers("prod/registry-2", &[("mallory", 1)]);

    // A document that the mapping refuses goes to the dead letters alone.
    let refused = || metric(&daemon, "dead_letters_total", "reason=\"rejected\",sink=\"refusing\"");
    wait_for("refused documents", || refused() == 3);
    wait_for("one that is accepted", || metric(&daemon, "deliveries_total", "sink=\"refusing\"") == 1);

    // A full disk (429 of an item) and a block (403) are retried.
    for (block, reason, actor) in
        [("read_only_allow_delete", "throttled", "trent"), ("write", "rejected", "ivan")]
    {
        let set = |value: Value| {
            let settings = json!({format!("index.blocks.{block}"): value});
            server.call("PUT", &format!("/{STREAM}/_settings"), &settings);
        };
        set(json!(true));
        daemon.read(actor, actor, "registry-1");
        let labels = format!("reason=\"{reason}\",sink=\"elastic\"");
        wait_for(block, || metric(&daemon, "failures_total", &labels) > 1);
        set(Value::Null);
        wait_for(actor, || {
            let readers = server.readers("prod/registry-1");
            readers.is_some_and(|readers| readers.iter().any(|(name, _)| name == actor))
        });
    }
    assert_eq!(metric(&daemon, "dead_letters_total", "reason=\"rejected\",sink=\"elastic\""), 0);

    // Nothing is lost while the server is down, and nothing is there twice.
    server.kill();
    daemon.read("a5", "peggy", "registry-1");
    wait_for("retries", || metric(&daemon, "retries_total", "sink=\"elastic\"") > 3);
    server.restart();
    let all = [("eve", 1), ("ivan", 1), ("mallory", 2), ("peggy", 1), ("trent", 1)];
    server.wait_for_readers("prod/registry-1", &all);
    let delivered = metric(&daemon, "deliveries_total", "sink=\"elastic\"");
    assert_eq!(delivered, 7);

    // A sink with a new name sends everything again: each is there already, which counts as delivered.
    daemon.kill();
    let config = daemon.dir.path().join("pullwatch.yaml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("name: elastic", "name: again")).unwrap();
    daemon.restart();
    wait_for("all again", || metric(&daemon, "deliveries_total", "sink=\"again\"") == 7);
    server.wait_for_readers("prod/registry-1", &all);
    server.wait_for_readers("prod/registry-2", &[("mallory", 1)]);
    assert_eq!(server.call("GET", &format!("/{STREAM}/_count"), &Value::Null)["count"], 7);
}
