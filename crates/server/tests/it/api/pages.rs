//! The pages for fans, as browsers get them.

use std::collections::BTreeSet;
use std::io::Read;

use boxoffice::endpoints::Route;
use boxoffice::http::problem::ErrorCode;
use flate2::read::GzDecoder;

use crate::common::{Call, Client, ICON, Reply, TestService, get};
use crate::issuer::{Issuer, Signer};

/// A path of each page.
const PAGES: [&str; 7] =
    ["/", "/c/4", "/c/4/s/15", "/pay/7", "/t/9223372036854775807", "/me", "/wait/main"];

/// Bytes that TCP sends before it hears of the other side: ten segments. What comes behind takes whoever has
/// a slow connection one more round trip.
const FIRST_WINDOW: usize = 10 * 1_460;

fn gzipped(path: &str) -> Call {
    get(path).header("Accept-Encoding", "br, gzip;q=0.8")
}

fn unzipped(reply: &Reply) -> Vec<u8> {
    assert_eq!(reply.header("content-encoding"), Some("gzip"), "{:?}", reply.headers);
    let mut plain = Vec::new();
    GzDecoder::new(&reply.body[..]).read_to_end(&mut plain).unwrap();
    plain
}

/// The paths that a page or a script refers to.
fn references(reply: &Reply) -> BTreeSet<String> {
    let text = std::str::from_utf8(&reply.body).unwrap();
    let quoted = |quote: char| text.split(quote).filter(|part| part.starts_with("/assets/"));
    quoted('"').chain(quoted('\'')).map(str::to_owned).collect()
}

/// Everything but what is different each time.
fn head(reply: &Reply) -> Vec<(String, String)> {
    let differs = ["x-request-id", "date"];
    let headers = reply.headers.iter().filter(|(name, _)| !differs.contains(&name.as_str()));
    headers.cloned().collect()
}

async fn served(client: &mut Client, path: &str) -> Reply {
    let reply = client.send(get(path)).await;
    assert_eq!(reply.status, 200, "{path}: {reply}");
    reply
}

#[tokio::test]
async fn every_page_is_there_and_may_do_little() {
    let service = TestService::start().await;
    let mut fan = service.client();
    for path in PAGES {
        let plain = served(&mut fan, path).await;
        assert!(plain.body.starts_with(b"<!doctype html>"), "{path}");
        for (name, value) in [
            ("content-type", "text/html; charset=utf-8"),
            ("cache-control", "public, max-age=60, stale-if-error=86400"),
            ("vary", "accept-encoding"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("x-frame-options", "DENY"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(plain.header(name), Some(value), "{path}: {name}");
        }
        assert_eq!(plain.header("content-encoding"), None);
        assert!(plain.header("permissions-policy").unwrap().contains("camera=()"));
        let policy = plain.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src '"), "{policy}");
        for part in [
            "connect-src 'self'; ",
            "frame-ancestors 'none'; ",
            "require-trusted-types-for 'script'; trusted-types ",
        ] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        let is_one_document =
            policy.contains("script-src 'sha256-") && policy.contains("style-src 'sha256-");
        assert_eq!(is_one_document, path.starts_with("/wait/"), "{path}: {policy}");

        let zipped = fan.send(gzipped(path)).await;
        assert_eq!(unzipped(&zipped), plain.body, "{path}");
        assert_ne!(zipped.header("etag"), plain.header("etag"), "{path}");
        assert_eq!(zipped.header("content-security-policy"), Some(policy), "{path}");
        if path.starts_with("/wait/") {
            let headers: usize =
                zipped.headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
            let bytes = "HTTP/1.1 200 OK\r\n\r\n".len() + headers + zipped.body.len();
            assert!(bytes <= FIRST_WINDOW, "{bytes} bytes");
        }
        for (first, call) in [(&plain, get(path)), (&zipped, gzipped(path))] {
            let tag = first.header("etag").unwrap();
            let again =
                fan.send(call.clone().header("If-None-Match", format!("\"x\", W/{tag}"))).await;
            again.empty(304);
            for name in ["etag", "cache-control", "vary", "content-security-policy"] {
                assert_eq!(again.header(name), first.header(name), "{path}: {name}");
            }
            let other = fan.send(call.header("If-None-Match", "\"0123456789abcdef\"")).await;
            assert_eq!((other.status, &other.body), (200, &first.body), "{path}");
        }
        // A query is for the page itself.
        let asked = served(&mut fan, &format!("{path}?lang=en&c=4")).await;
        assert_eq!((head(&asked), &asked.body), (head(&plain), &plain.body), "{path}");
        let reply = fan.send(Call::new("HEAD", path)).await;
        assert_eq!((reply.status, head(&reply)), (200, head(&plain)), "{path}");
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            let reply = fan.send(Call::new(method, path)).await;
            assert_eq!(reply.header("allow"), Some("GET,HEAD"), "{method} {path}");
            reply.refused(ErrorCode::MethodNotAllowed);
        }
    }
    // The same for every concert.
    let [one, other] = ["/c/4", "/c/5"].map(get);
    assert_eq!(fan.send(one).await.body, fan.send(other).await.body);
    service.finish().await;
}

#[tokio::test]
async fn what_pages_refer_to_is_there_for_good() {
    let service = TestService::start().await;
    let mut fan = service.client();
    let (mut left, mut found): (Vec<String>, _) = (Vec::new(), BTreeSet::new());
    for path in PAGES {
        left.extend(references(&served(&mut fan, path).await));
    }
    while let Some(path) = left.pop() {
        if !found.insert(path.clone()) {
            continue;
        }
        let plain = served(&mut fan, &path).await;
        left.extend(references(&plain));
        // The one that stands between tickets and the network, and between nothing else.
        let scope = path.starts_with("/assets/lib/worker-").then_some("/t/");
        assert_eq!(plain.header("service-worker-allowed"), scope, "{path}");
        let media_type = match path.rsplit_once('.').unwrap().1 {
            "css" => "text/css; charset=utf-8",
            "js" => "text/javascript; charset=utf-8",
            "svg" => "image/svg+xml",
            other => panic!("{other}: {path}"),
        };
        for (name, value) in [
            ("content-type", media_type),
            ("cache-control", "public, max-age=31536000, immutable"),
            ("vary", "accept-encoding"),
            ("cross-origin-resource-policy", "same-origin"),
            ("x-content-type-options", "nosniff"),
        ] {
            assert_eq!(plain.header(name), Some(value), "{path}: {name}");
        }
        assert_eq!(unzipped(&fan.send(gzipped(&path)).await), plain.body, "{path}");
        let tag = plain.header("etag").unwrap();
        fan.send(get(&path).header("If-None-Match", tag)).await.empty(304);
        let reply = fan.send(Call::new("HEAD", &path)).await;
        assert_eq!((reply.status, head(&reply)), (200, head(&plain)), "{path}");
        let reply = fan.send(Call::new("POST", &path)).await;
        reply.refused(ErrorCode::MethodNotAllowed);
        // From a document of another version: what there is now, not to be kept under that address.
        let (name, extension) = path.rsplit_once('.').unwrap();
        let stem = name.rsplit_once('-').unwrap().0;
        let other = served(&mut fan, &format!("{stem}-0123456789abcdef.{extension}")).await;
        assert_eq!((other.header("cache-control"), &other.body), (Some("no-cache"), &plain.body));
        fan.send(get(format!("{stem}.{extension}"))).await.refused(ErrorCode::RouteNotFound);
    }
    let ends = |end: &str| found.iter().any(|path| path.ends_with(end));
    assert!(ends(".js") && ends(".css") && ends(".svg"), "{found:?}");
    service.finish().await;
}

#[tokio::test]
async fn a_path_that_no_page_can_have_is_404() {
    let service = TestService::start().await;
    let mut fan = service.client();
    let long = format!("/wait/{}", "x".repeat(41));
    let (dots, deep) = ("/assets/../src/main.rs", format!("/assets/{}a", "a/".repeat(1_000)));
    for path in [
        "/c/",
        "/c/0",
        "/c/x",
        "/c/-1",
        "/c/01",
        "/c/1.0",
        "/c/9223372036854775808",
        "/c/%31",
        "/c/1/",
        "/c/1/s",
        "/c/1/s/",
        "/c/1/s/0",
        "/c/0/s/1",
        "/c/1/s/1/",
        "/c/1/t/1",
        "/pay/",
        "/pay/x",
        "/t/0",
        "/t/%ff",
        "/me/x",
        "/m%65",
        "//",
        "//me",
        "/wait",
        "/wait/",
        "/wait/MAIN",
        "/wait/m%61in",
        "/wait/a.b",
        "/wait/main/",
        "/wait/main/x",
        "/wait/%00",
        &long,
        "/assets/",
        "/assets/icon.svg",
        dots,
        &deep,
        "/assets/fan/index.html",
        "/assets/types.d.ts",
        "/assets/%2e%2e/icon.svg",
        "/assets/none-0123456789abcdef.js",
        "/favicon.ico",
        "/robots.txt",
    ] {
        for call in [get(path), gzipped(path), Call::new("HEAD", path)] {
            let is_head = call.method == "HEAD";
            let reply = fan.send(call).await;
            assert_eq!(reply.status, 404, "{path}: {reply}");
            assert_eq!(reply.header("cache-control"), Some("no-store"), "{path}");
            if !is_head {
                reply.refused(ErrorCode::RouteNotFound);
            }
        }
    }
    service.finish().await;
}

#[tokio::test]
async fn pages_are_counted_by_their_endpoint() {
    let service = TestService::start().await;
    let mut fan = service.client();
    for path in PAGES {
        served(&mut fan, path).await;
    }
    served(&mut fan, &format!("/assets/{ICON}")).await;
    for number in 1..=20 {
        fan.send(get(format!("/assets/none-{number:016x}.js")))
            .await
            .refused(ErrorCode::RouteNotFound);
    }
    let metrics = service.send(get("/metrics")).await;
    let metrics = String::from_utf8(metrics.body).unwrap();
    let counted = |route: Route, status: &str, count: u32| {
        let route = route.template();
        let line = format!(
            "http_server_request_duration_seconds_count{{method=\"GET\",route=\"{route}\",status=\"{status}\"}} {count}\n"
        );
        assert!(metrics.contains(&line), "{line}");
    };
    // Those of the console are served as these are, and are looked at in `console`.
    for route in Route::PAGES.into_iter().filter(|it| !it.template().starts_with("/ops")) {
        counted(route, "2xx", 1);
    }
    counted(Route::PageAsset, "4xx", 20);
    assert!(!metrics.contains("none-0"), "a label for each path");
    service.finish().await;
}

#[tokio::test]
async fn pages_can_be_switched_off() {
    let service = TestService::start_with(|config| config.pages.enabled = false).await;
    let mut fan = service.client();
    let icon = format!("/assets/{ICON}");
    for path in PAGES.into_iter().chain([icon.as_str()]) {
        for method in ["GET", "POST"] {
            fan.send(Call::new(method, path)).await.refused(ErrorCode::RouteNotFound);
        }
    }
    fan.send(get("/api/v1/concerts")).await.ok(200);
    service.finish().await;
}

#[tokio::test]
async fn pages_are_read_from_a_directory_at_each_request() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("fan/page.html", "<!doctype html> \"/assets/fan/a.js\" {{auth}}");
    write("fan/index.js", "");
    write("fan/a.js", "1");
    let from = directory.path().to_owned();
    let service = TestService::start_with(|config| config.pages.directory = Some(from)).await;
    let mut fan = service.client();
    let page = served(&mut fan, "/").await;
    assert_eq!(page.header("cache-control"), Some("no-cache"));
    assert!(page.body.ends_with(b" none"), "{page}");
    let before = references(&page);
    let first = before.first().unwrap();
    assert_eq!(served(&mut fan, first).await.body, b"1");
    write("fan/a.js", "2");
    let after = references(&served(&mut fan, "/").await);
    assert_ne!(after, before);
    let second = served(&mut fan, after.first().unwrap()).await;
    assert_eq!(
        (second.body.as_slice(), second.header("cache-control")),
        (&b"2"[..], Some("no-cache"))
    );
    // There are no others.
    fan.send(get("/me")).await.refused(ErrorCode::RouteNotFound);
    fan.send(Call::new("POST", "/me")).await.refused(ErrorCode::MethodNotAllowed);
    // What is wrong is for whoever works on them, in the log.
    write("fan/a.js", "import '/assets/fan/none.js';");
    let wrong = fan.send(get("/")).await.refused(ErrorCode::Internal);
    assert!(!wrong.to_string().contains("none.js"), "{wrong}");
    write("fan/a.js", "3");
    served(&mut fan, "/").await;
    service.finish().await;
}

#[tokio::test]
async fn pages_know_how_people_are_known_and_are_not_for_operators() {
    let issuer = Issuer::start(Signer::es()).await;
    let service = TestService::start().await;
    let auth = |reply: &Reply, mode: &str| {
        let said = format!("name=\"boxoffice-auth\" content=\"{mode}\"");
        assert!(String::from_utf8_lossy(&reply.body).contains(&said), "{reply}");
    };
    for path in PAGES {
        auth(&service.send(get(path)).await, "none");
    }
    let before = service.send(get("/me")).await.header("etag").unwrap().to_owned();
    let service = service
        .restart(|config| {
            issuer.configure(config);
            config.admin.listen = Some("127.0.0.1:0".parse().unwrap());
        })
        .await;
    let mut operator = Client::new(service.running().admin_address());
    for path in PAGES {
        auth(&service.send(get(path)).await, "jwt");
        operator.send(get(path)).await.refused(ErrorCode::RouteNotFound);
    }
    let again = service.send(get("/me").header("If-None-Match", before)).await;
    assert_eq!(again.status, 200, "the page has changed");
    service.finish().await;
}

#[tokio::test]
async fn no_other_origin_reads_pages() {
    let origin = "https://tickets.example";
    let service =
        TestService::start_with(|config| config.server.cors_origins = vec![origin.into()]).await;
    let mut fan = service.client();
    let icon = format!("/assets/{ICON}");
    for path in PAGES.into_iter().chain([icon.as_str()]) {
        let reply = fan.send(get(path).header("Origin", origin)).await;
        assert_eq!(reply.header("vary"), Some("accept-encoding"), "{path}");
        assert_eq!(reply.header("access-control-allow-origin"), None, "{path}");
    }
    let reply = fan.send(get("/api/v1/concerts").header("Origin", origin)).await;
    assert_eq!(reply.header("access-control-allow-origin"), Some(origin));
    service.finish().await;
}
