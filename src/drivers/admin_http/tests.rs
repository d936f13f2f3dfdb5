use super::*;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A server in front of a fake cluster of so many nodes.
async fn start(nodes: usize) -> SocketAddr {
    let (source, requests) = mpsc::channel(REQUESTS_MAX);
    tokio::spawn(fake::answer(nodes, requests));
    start_with(source).await
}

async fn start_with(source: AdminSource) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, source, std::future::pending()));
    address
}

/// Status line and headers in lower case, and the body.
async fn request(address: SocketAddr, method: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let text =
        format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_lowercase(), body.to_owned())
}

#[tokio::test]
async fn json_can_be_read_back() {
    let address = start(3).await;
    let (head, body) = request(address, "GET", "/v1/cluster").await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(head.contains("content-type: application/json"));
    let status: ClusterStatus = serde_json::from_str(&body).unwrap();
    assert_eq!(status.members.len(), 3);
    assert_eq!(status.members.iter().map(|member| member.primaries).sum::<u32>(), 1024);

    let (_, body) = request(address, "GET", "/v1/partitions").await;
    let table: PartitionsStatus = serde_json::from_str(&body).unwrap();
    assert_eq!(table.partitions.len(), 1024);
    assert_eq!(table.partitions[0].backups.len(), 1);
}

#[tokio::test]
async fn health_and_readiness_differ() {
    let (healthy, healing) = (start(3).await, start(5).await);
    assert!(request(healing, "GET", "/healthz").await.0.starts_with("http/1.1 200"));
    assert_eq!(request(healthy, "GET", "/readyz").await.1, "ready\n");
    let (head, body) = request(healing, "GET", "/readyz").await;
    assert!(head.starts_with("http/1.1 503"));
    assert_eq!(body, "not ready: 3 copies are not in sync\n");
}

#[tokio::test]
async fn metrics_are_announced_as_prometheus_text() {
    let (head, body) = request(start(3).await, "GET", "/metrics").await;
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(body.starts_with("# HELP ringdove_info "), "{body}");
}

#[tokio::test]
async fn only_reads_are_answered_and_all_answers_are_guarded() {
    let address = start(3).await;
    for (method, path, status) in [
        ("GET", "/", "200"),
        ("HEAD", "/", "200"),
        ("POST", "/", "405"),
        ("DELETE", "/v1/cluster", "405"),
        ("PUT", "/nowhere", "405"),
        ("GET", "/nowhere", "404"),
        ("GET", "/../etc/passwd", "404"),
    ] {
        let (head, _) = request(address, method, path).await;
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{method} {path}: {head}");
        for name in ["content-security-policy", "x-frame-options", "x-content-type-options", "cache-control"]
        {
            assert!(head.contains(&format!("\r\n{name}: ")), "{method} {path} lacks {name}");
        }
        assert!(!head.contains("access-control"), "{method} {path}");
    }
}

#[tokio::test]
async fn a_silent_node_is_said_to_be() {
    // Gone.
    let (source, requests) = mpsc::channel(1);
    drop(requests);
    let (head, _) = request(start_with(source).await, "GET", "/v1/cluster").await;
    assert!(head.starts_with("http/1.1 503"), "{head}");

    // Overloaded: it takes no more questions.
    let (source, _requests) = mpsc::channel(1);
    source.try_send(AdminRequest::Metrics(oneshot::channel().0)).unwrap();
    let (head, body) = request(start_with(source).await, "GET", "/metrics").await;
    assert!(head.starts_with("http/1.1 503"), "{head}");
    assert!(body.contains("does not answer"));
}

/// The page works on a machine without any network but the cluster's.
#[test]
fn the_page_names_no_other_server() {
    // An empty icon of its own keeps browsers from asking for one.
    let page = PAGE.replace(r#"<link rel="icon" href="data:,">"#, "");
    for word in ["http:", "https:", "//cdn", "src=", "@import", "url(", "<link", "integrity="] {
        assert!(!page.contains(word), "the page contains `{word}`");
    }
    assert!(page.contains("/v1/cluster") && page.contains("/v1/partitions"));
}

/// Not a test: serves the fake cluster for looking at the page in a browser.
///
/// `RINGDOVE_TEST_NODES=5 RINGDOVE_TEST_SECONDS=60 cargo test --lib serve_the_page -- --ignored`
#[tokio::test]
#[ignore = "serves a page for people to look at"]
async fn serve_the_page() {
    let number =
        |name: &str, default| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    let (source, requests) = mpsc::channel(REQUESTS_MAX);
    tokio::spawn(fake::answer(number("RINGDOVE_TEST_NODES", 3) as usize, requests));
    let listener = TcpListener::bind(("127.0.0.1", number("RINGDOVE_TEST_PORT", 9379) as u16)).await.unwrap();
    let stop = tokio::time::sleep(Duration::from_secs(number("RINGDOVE_TEST_SECONDS", 60)));
    serve(listener, source, stop).await.unwrap();
}
