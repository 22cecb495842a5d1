//! The built-in server with a directory of files (`http.root`), asked by curl through a forwarding director.

use crate::curl::{Fetched, curl};
use dpr_lab::{NodePlan, Server};
use dpr_tests::stage::Stage;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

const PAGE: &str = "<p>a page\n";
const SECRET: &str = "nobody may read this";

pub(crate) fn directory() {
    let parent = tempfile::tempdir().unwrap();
    let root = site(parent.path());
    let plan = NodePlan { server: Server::Files(root.clone()), ..NodePlan::default() };
    let stage = Stage::start(2, 1, plan);
    stage.set_loads(&[900, 100]);
    let ask = |path: &str, arguments: &[&str]| {
        let url = format!("http://{}{path}", stage.nodes[0].service());
        curl(&stage.clients[0], &[arguments, &["--path-as-is", &url]].concat())
    };

    let whoami = ask("/.dpr/whoami", &[]);
    assert!(whoami.text().contains(r#""name":"n2""#), "n2 has to serve: {}", whoami.text());
    let page = ask("/", &[]);
    assert_eq!((page.transfer().status, page.text()), (200, PAGE));
    assert_head_is_true(&ask("/", &["--head"]));
    assert_answers_only_what_changed(&root, ask);
    assert_eq!(ask("/sub", &[]).transfer().status, 301, "a directory's page has relative links");
    for absent in ["/absent", "/sub/absent", "/index.html/below"] {
        assert_eq!(ask(absent, &[]).transfer().status, 404, "{absent}");
    }
    assert_no_way_out(ask);
    assert_eq!(ask("/", &["--data", "x"]).transfer().status, 405, "it takes nothing from clients");
}

/// A directory with pages, a file beside it that nobody may read, and links that lead to it.
fn site(parent: &Path) -> std::path::PathBuf {
    let root = parent.join("www");
    fs::create_dir_all(root.join("sub")).unwrap();
    fs::write(parent.join("secret"), SECRET).unwrap();
    fs::write(root.join("index.html"), PAGE).unwrap();
    fs::write(root.join("sub/index.html"), "<p>below\n").unwrap();
    symlink("../secret", root.join("link")).unwrap();
    symlink(parent, root.join("sub/parent")).unwrap();
    root
}

fn assert_head_is_true(head: &Fetched) {
    let text = head.text().to_ascii_lowercase();
    assert_eq!(head.transfer().status, 200);
    assert!(text.contains(&format!("\r\ncontent-length: {}\r\n", PAGE.len())), "{text}");
    assert!(text.contains("\r\ncontent-type: text/html"), "{text}");
    assert!(text.contains("\r\nlast-modified: "), "{text}");
    assert!(text.ends_with("\r\n\r\n"), "a head has no body: {text}");
}

/// `If-Modified-Since`, made by curl from the date of a file.
fn assert_answers_only_what_changed(root: &Path, ask: impl Fn(&str, &[&str]) -> Fetched) {
    let page = root.join("index.html");
    let page = page.to_str().unwrap();
    let unchanged = ask("/", &["--time-cond", page]);
    assert_eq!((unchanged.transfer().status, unchanged.text()), (304, ""));
    let changed = ask("/", &["--time-cond", "1 Jan 2001 00:00:00 GMT"]);
    assert_eq!((changed.transfer().status, changed.text()), (200, PAGE));
}

fn assert_no_way_out(ask: impl Fn(&str, &[&str]) -> Fetched) {
    let ways = [
        "/../secret",
        "/sub/../../secret",
        "/..%2fsecret",
        "/%2e%2e/secret",
        "/%2e%2e%2fsecret",
        "/sub/..%2f..%2fsecret",
        "//../secret",
        "/.//../secret",
        "/..\\secret",
        "/link",
        "/sub/parent/secret",
        "/%00/../secret",
        "/../../../../../../../../etc/passwd",
    ];
    for way in ways {
        let answer = ask(way, &[]);
        let said = String::from_utf8_lossy(&answer.output);
        assert!((400..500).contains(&answer.transfer().status), "{way}: {:?}: {said}", answer.transfer());
        assert!(!said.contains(SECRET) && !said.contains("root:"), "{way}: {said}");
    }
}
