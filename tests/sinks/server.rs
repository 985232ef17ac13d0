//! An HTTP server whose answers a test sets, and other ends of sockets.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    /// Request line and headers, with names in lower case.
    pub head: String,
    pub body: Vec<u8>,
}

impl Request {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }
}

/// What to do about a request.
#[derive(Clone, Debug)]
pub enum Answer {
    Status(u16),
    /// With a header.
    With(u16, &'static str),
    /// With a text as its content.
    Text(u16, &'static str),
    /// Say nothing, for ever.
    Hang,
    /// Say 200, and never end the answer.
    Trickle,
    /// Close the connection without an answer.
    Cut,
    /// 400 where the body holds this, 200 otherwise; not used up.
    RefuseBodiesWith(&'static str),
    /// Do not answer until the test permits it.
    Hold(Arc<tokio::sync::Notify>),
}

/// A server on a port of its own.
#[derive(Clone, Debug)]
pub struct Server {
    pub port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
    connections: Arc<Mutex<usize>>,
}

impl Server {
    /// Answers so, and 200 once all of that was said.
    pub async fn start(answers: impl IntoIterator<Item = Answer>) -> Server {
        Self::start_with(None, answers).await
    }

    pub async fn start_with(tls: Option<TlsAcceptor>, answers: impl IntoIterator<Item = Answer>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server {
            port: listener.local_addr().unwrap().port(),
            requests: Arc::default(),
            connections: Arc::default(),
        };
        let answers = Arc::new(Mutex::new(answers.into_iter().collect::<VecDeque<_>>()));
        let ours = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                *ours.connections.lock().unwrap() += 1;
                let (server, tls, answers) = (ours.clone(), tls.clone(), answers.clone());
                tokio::spawn(async move {
                    match tls {
                        None => server.serve(stream, answers).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                server.serve(stream, answers).await;
                            }
                        }
                    }
                });
            }
        });
        server
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/in", self.port)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    pub fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }

    async fn serve(
        &self,
        mut stream: impl AsyncRead + AsyncWrite + Unpin,
        answers: Arc<Mutex<VecDeque<Answer>>>,
    ) {
        let mut bytes = Vec::new();
        loop {
            let Some(request) = read(&mut stream, &mut bytes).await else { return };
            let body = request.text_or_empty();
            self.requests.lock().unwrap().push(request);
            let answer = {
                let mut answers = answers.lock().unwrap();
                match answers.front().cloned() {
                    Some(Answer::RefuseBodiesWith(text)) => {
                        Answer::Status(if body.contains(text) { 400 } else { 200 })
                    }
                    Some(answer) => {
                        answers.pop_front();
                        answer
                    }
                    None => Answer::Status(200),
                }
            };
            let (status, header, content) = match answer {
                Answer::Status(status) => (status, "", "ok"),
                Answer::With(status, header) => (status, header, "ok"),
                Answer::Text(status, text) => (status, "", text),
                Answer::Trickle => {
                    let text = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok";
                    let _ = stream.write_all(text.as_bytes()).await;
                    tokio::time::sleep(Duration::from_secs(3600)).await;
                    return;
                }
                Answer::Hang => {
                    tokio::time::sleep(Duration::from_secs(3600)).await;
                    return;
                }
                Answer::Cut | Answer::RefuseBodiesWith(_) => return,
                Answer::Hold(until) => {
                    until.notified().await;
                    (200, "", "ok")
                }
            };
            let header = if header.is_empty() { String::new() } else { format!("{header}\r\n") };
            let length = content.len();
            let text = format!("HTTP/1.1 {status} Said\r\ncontent-length: {length}\r\n{header}\r\n{content}");
            if stream.write_all(text.as_bytes()).await.is_err() || stream.flush().await.is_err() {
                return;
            }
        }
    }
}

impl Request {
    fn text_or_empty(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap_or_default()
    }
}

/// Reads a request; what follows stays in `bytes`.
async fn read(stream: &mut (impl AsyncRead + Unpin), bytes: &mut Vec<u8>) -> Option<Request> {
    loop {
        if let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let mut request = Request { head, body: Vec::new() };
            let length: usize = request.header("content-length").unwrap().parse().unwrap();
            if bytes.len() >= end + 4 + length {
                let rest = bytes.split_off(end + 4 + length);
                request.body = bytes.split_off(end + 4);
                *bytes = rest;
                return Some(request);
            }
        }
        if stream.read_buf(bytes).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}
