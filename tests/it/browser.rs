//! The admin page in a real browser.

use crate::harness::cluster::Cluster;
use crate::harness::tools;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long the browser may take, on a busy machine.
const BROWSER_DEADLINE: Duration = Duration::from_secs(90);

/// Opens `url` without a window and gives the document as it is when the page has settled.
fn dump(program: &Path, url: &str, more: &[&str]) -> String {
    let profile = tempfile::tempdir().unwrap();
    let mut browser = Command::new(program)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args([
            "--disable-dev-shm-usage",
            "--window-size=1400,1000",
            "--virtual-time-budget=4000",
            "--dump-dom",
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(more)
        .arg(url)
        .env("HOME", profile.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the browser starts");
    let mut stdout = browser.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut document = String::new();
        stdout.read_to_string(&mut document).map(|_| document)
    });
    let start = Instant::now();
    while !reader.is_finished() && start.elapsed() < BROWSER_DEADLINE {
        std::thread::sleep(Duration::from_millis(50));
    }
    let _gone = browser.kill();
    let _status = browser.wait();
    reader.join().unwrap().expect("the document is text")
}

#[test]
fn the_admin_page_draws_three_members_and_the_ring() {
    let Some(program) = tools::find(&["chromium", "chromium-browser", "google-chrome"]) else { return };
    let cluster = Cluster::start(3);
    crate::harness::load::touch_everything("page", cluster.nodes[0].resp);
    let url = format!("http://{}/", cluster.nodes[0].admin);
    let document = dump(&program, &url, &[]);
    for node in &cluster.nodes {
        assert!(document.contains(&node.node), "{} is missing in: {document}", node.node);
        assert!(document.contains(&node.resp.to_string()), "{} is missing", node.resp);
    }
    for text in
        ["3 members", ">healthy<", "3 of 3", ">1,024<", "partitions × 2 copies", "dove-1", "dove-2", "dove-3"]
    {
        assert!(document.contains(text), "{text} is missing in: {document}");
    }
    // The canvas has the size of its place only once it was drawn on.
    let canvas =
        document.split("<canvas id=\"ring\"").nth(1).and_then(|rest| rest.split('>').next()).unwrap();
    assert!(canvas.contains("width=\"") && canvas.contains("height=\""), "the ring isn't drawn: {canvas}");
    // Whoever wants to look at it as well.
    if let Some(picture) = std::env::var_os("RINGDOVE_SCREENSHOT") {
        dump(&program, &url, &[&format!("--screenshot={}", Path::new(&picture).display())]);
    }
}
