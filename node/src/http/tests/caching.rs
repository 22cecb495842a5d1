//! Files, validators, preconditions, and what is kept in memory.

use super::*;
use std::time::SystemTime;

/// A site with a page, a file that is kept in memory, one that is not, and a directory.
fn site() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("index.html"), "<p>home").unwrap();
    std::fs::write(root.path().join("small.txt"), "x".repeat(1000)).unwrap();
    std::fs::write(root.path().join("big.txt"), "x".repeat(700_000)).unwrap();
    std::fs::create_dir(root.path().join("sub")).unwrap();
    root
}

/// Gives a file a date long ago. The kernel's own date of the change stays.
fn age(path: &Path) {
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(784_903_526)).unwrap();
}

const LONG_AGO: &str = "Tue, 15 Nov 1994 12:45:26 GMT";

#[tokio::test]
async fn files_are_served_whole_with_everything_that_describes_them() {
    let root = site();
    age(&root.path().join("big.txt"));
    let server = start(Some(root.path()), 8).await;

    let home = request(&server, "GET", "/", &[]).await;
    let big = request(&server, "GET", "/big.txt", &[]).await;

    assert_eq!((home.status, home.body.as_slice()), (200, b"<p>home".as_slice()));
    assert_eq!(home.field("content-type"), "text/html; charset=utf-8");
    assert_eq!(big.body.len(), 700_000);
    assert_eq!((big.field("content-length"), big.field("accept-ranges")), ("700000", "bytes"));
    assert_eq!(big.field("last-modified"), LONG_AGO);
    for answer in [&home, &big] {
        assert!(answer.headers.contains_key("etag") && answer.headers.contains_key("date"), "{answer:?}");
        assert!(!answer.headers.contains_key("vary"), "{answer:?}");
    }
}

#[tokio::test]
async fn head_gets_the_same_headers_as_get_and_no_body() {
    let root = site();
    let server = start(Some(root.path()), 8).await;
    // Until the tags of large files are strong.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    for path in ["/", "/small.txt", "/big.txt", "/sub", "/none", "/.dpr/health", "/.dpr/whoami"] {
        let mut get = request(&server, "GET", path, &[]).await;
        let mut head = request(&server, "HEAD", path, &[]).await;

        for answer in [&mut get, &mut head] {
            answer.headers.remove("date");
        }
        if path == "/.dpr/whoami" {
            // It names the client's port.
            get.headers.remove("content-length");
            head.headers.remove("content-length");
        }
        assert_eq!((get.status, &get.headers), (head.status, &head.headers), "{path}");
        assert!(head.body.is_empty(), "{path}");
    }
}

#[tokio::test]
async fn a_directory_without_a_slash_is_redirected_on_this_host_with_its_query() {
    let root = site();
    let server = start(Some(root.path()), 8).await;
    for (path, location) in [("/sub", "/sub/"), ("//sub", "/sub/"), ("/sub?a=/b", "/sub/?a=/b")] {
        let answer = request(&server, "GET", path, &[]).await;
        assert_eq!((answer.status, answer.field("location")), (301, location), "{path}");
    }
    assert_eq!(request(&server, "GET", "/sub/", &[]).await.status, 404, "there is no page in it");
}

#[tokio::test]
async fn what_the_client_knows_is_not_sent_again() {
    let root = site();
    let server = start(Some(root.path()), 8).await;
    for path in ["/small.txt", "/big.txt"] {
        let first = request(&server, "GET", path, &[]).await;
        let (etag, date) = (first.field("etag"), first.field("last-modified"));
        for (name, value) in [("If-None-Match", etag), ("If-Modified-Since", date), ("If-None-Match", "*")] {
            let second = request(&server, "GET", path, &[(name, value)]).await;

            assert_eq!((second.status, second.body.len()), (304, 0), "{path} {name}");
            assert!(!second.headers.contains_key("content-length"), "{path} {name}");
            assert_eq!(
                second.field("etag").trim_start_matches("W/"),
                etag.trim_start_matches("W/"),
                "{path} {name}"
            );
        }
    }
}

#[tokio::test]
async fn a_precondition_that_fails_is_412_but_not_where_there_is_nothing() {
    let root = site();
    age(&root.path().join("small.txt"));
    let server = start(Some(root.path()), 8).await;
    for (name, value) in [("If-Match", "\"no\""), ("If-Unmodified-Since", "Tue, 15 Nov 1994 12:45:25 GMT")] {
        assert_eq!(request(&server, "GET", "/small.txt", &[(name, value)]).await.status, 412, "{name}");
        assert_eq!(request(&server, "GET", "/none", &[(name, value)]).await.status, 404, "{name}");
    }
}

#[tokio::test]
async fn equal_small_files_have_equal_strong_tags_whatever_their_dates() {
    let root = site();
    let other = site();
    age(&other.path().join("small.txt"));
    let (a, b) = (start(Some(root.path()), 8).await, start(Some(other.path()), 8).await);

    let of_a = request(&a, "GET", "/small.txt", &[]).await;
    let of_b = request(&b, "GET", "/small.txt", &[]).await;

    assert_ne!(of_a.field("last-modified"), of_b.field("last-modified"));
    assert_eq!(of_a.field("etag"), of_b.field("etag"));
    assert!(of_a.field("etag").starts_with('"'), "{of_a:?}");
}

#[tokio::test]
async fn the_tag_of_a_large_file_is_weak_until_another_change_must_show() {
    let root = site();
    let server = start(Some(root.path()), 8).await;

    let young = request(&server, "GET", "/big.txt", &[]).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let old = request(&server, "GET", "/big.txt", &[]).await;

    assert_eq!(young.field("etag"), format!("W/{}", old.field("etag")));
}

#[tokio::test]
async fn a_date_in_the_future_is_not_told() {
    let root = site();
    let path = root.path().join("small.txt");
    let future = SystemTime::now() + Duration::from_secs(86_400);
    std::fs::File::options().write(true).open(path).unwrap().set_modified(future).unwrap();
    let server = start(Some(root.path()), 8).await;

    let answer = request(&server, "GET", "/small.txt", &[]).await;

    let date = |name| httpdate::parse_http_date(answer.field(name)).unwrap();
    assert!(date("last-modified") <= date("date"), "{answer:?}");
}

#[tokio::test]
async fn a_change_shows_after_a_second_at_most_and_what_is_kept_needs_no_disk() {
    let root = site();
    let path = root.path().join("small.txt");
    let server = start(Some(root.path()), 8).await;
    let looked = std::time::Instant::now();
    let first = request(&server, "GET", "/small.txt", &[]).await;

    std::fs::rename(root.path().join("index.html"), &path).unwrap();
    let kept = request(&server, "GET", "/small.txt", &[]).await;
    let within = looked.elapsed() < Duration::from_secs(1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let second = request(&server, "GET", "/small.txt", &[]).await;
    std::fs::remove_file(&path).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let third = request(&server, "GET", "/small.txt", &[]).await;

    assert!(!within || kept.body == first.body, "what was seen is trusted for a second");
    assert_eq!((second.status, second.body.as_slice()), (200, b"<p>home".as_slice()));
    assert_eq!(third.status, 404);
}

#[tokio::test]
async fn a_change_that_leaves_length_and_date_is_still_seen() {
    let root = site();
    let path = root.path().join("small.txt");
    age(&path);
    let server = start(Some(root.path()), 8).await;
    request(&server, "GET", "/small.txt", &[]).await;

    std::fs::write(&path, "y".repeat(1000)).unwrap();
    age(&path);
    tokio::time::sleep(Duration::from_millis(1050)).await;
    let answer = request(&server, "GET", "/small.txt", &[]).await;

    assert!(answer.body.iter().all(|byte| *byte == b'y'));
}

#[tokio::test]
async fn no_number_of_paths_makes_the_memory_grow_beyond_its_bound() {
    let root = tempfile::tempdir().unwrap();
    for number in 0..400 {
        std::fs::write(root.path().join(number.to_string()), vec![7; 256 * 1024]).unwrap();
    }
    let cache = FileCache::new(Arc::new(Directory::open(root.path()).unwrap()));

    for number in 0..400 {
        cache.look_up(&format!("/{number}")).await.unwrap();
        cache.look_up(&format!("/none/{number}/{}", "x".repeat(3000))).await.unwrap();
    }

    assert!(cache.weight() <= 64 * 1024 * 1024, "{}", cache.weight());
    assert!(cache.weight() > 32 * 1024 * 1024, "{}", cache.weight());
}
