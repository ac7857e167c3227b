//! A door before a registry, as the large ones have: it wants a token, hands blobs out elsewhere, and fails at times.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so")]

use std::sync::{Arc, Mutex};

use hob_sandbox::image::ImageReference;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

/// What the door does with a request.
pub enum Answer {
    /// Lets it through.
    Pass,
    /// Lets it through, and cuts the answer off after so many bytes.
    Cut(u64),
    /// Answers itself: a status, headers, a body.
    Say(&'static str, String, String),
}

/// A request: its path with the query, and what it shows of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub path: String,
    pub authorization: Option<String>,
}

/// A door on a port of its own. It is open until the test ends.
pub struct Door {
    address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Door {
    pub async fn before(
        registry: &ImageReference,
        decide: impl Fn(&Asked, &str) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (behind, heard, own) = (registry.registry().to_owned(), Arc::clone(&asked), address.clone());
        let (tasks, decide) = (TaskTracker::new(), Arc::new(decide));
        tasks.clone().spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (behind, heard, own, decide) =
                    (behind.clone(), Arc::clone(&heard), own.clone(), Arc::clone(&decide));
                tasks.spawn(async move {
                    let (asked, head, client) = read_head(client).await;
                    heard.lock().unwrap().push(asked.clone());
                    answer(client, decide(&asked, &own), &head, &behind).await;
                });
            }
        });
        Self { address, asked }
    }

    pub fn reference(&self, name: &str) -> ImageReference {
        ImageReference::parse(&format!("{}/{name}", self.address)).unwrap()
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

async fn read_head(mut client: TcpStream) -> (Asked, String, TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let shown = head.lines().find_map(|line| line.strip_prefix("authorization: ")).map(str::to_owned);
    (Asked { path, authorization: shown }, head, client)
}

async fn answer(mut client: TcpStream, answer: Answer, head: &str, behind: &str) {
    let most = match answer {
        Answer::Say(status, headers, body) => {
            let length = body.len();
            let text =
                format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}");
            return client.write_all(text.as_bytes()).await.unwrap();
        }
        Answer::Pass => u64::MAX,
        Answer::Cut(bytes) => bytes,
    };
    let kept = head.lines().filter(|line| !line.starts_with("authorization:") && !line.is_empty());
    let head = kept.collect::<Vec<_>>().join("\r\n") + "\r\nconnection: close\r\n\r\n";
    let mut registry = TcpStream::connect(behind).await.unwrap();
    registry.write_all(head.as_bytes()).await.unwrap();
    // The client may have gone, which is its right.
    drop(tokio::io::copy(&mut registry.take(most), &mut client).await);
}
