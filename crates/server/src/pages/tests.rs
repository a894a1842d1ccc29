//! The pages that are in the program, and what is wrong with others.

use std::collections::BTreeSet;

use super::*;
use crate::config::PagesConfig;

const ALL: [&str; 3] = ["none", "jwt", "sign-in"];

fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pages")
}

fn told(auth: &'static str) -> Told {
    Told { auth, sites: Vec::new(), organiser: Organiser::default() }
}

fn site() -> Site {
    Site::built_in(&told("none")).unwrap()
}

fn with(changes: &[(&str, &str)]) -> Result<Site, String> {
    let files = FILES.iter().filter(|(name, _)| changes.iter().all(|(other, _)| other != name));
    let files = files.chain(changes).map(|(name, text)| ((*name).into(), (*text).into()));
    Site::new(files, &told("none"))
}

fn text(served: &Served) -> &str {
    std::str::from_utf8(&served.body).unwrap()
}

/// What stands between each two texts.
fn between<'t>(text: &'t str, begin: &str, end: &str) -> Vec<&'t str> {
    text.split(begin).skip(1).map(|rest| rest.split(end).next().unwrap()).collect()
}

/// The addresses that a file refers to.
fn references(served: &Served) -> BTreeSet<String> {
    let quoted = ["\"", "'"].map(|quote| between(text(served), &format!("{quote}{ASSETS}"), quote));
    quoted.concat().into_iter().map(str::to_owned).collect()
}

/// Everything that a document makes a browser fetch.
fn fetched(site: &Site, document: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut left: Vec<String> = references(&site.documents[document]).into_iter().collect();
    while let Some(address) = left.pop() {
        let (served, is_current) = site.asset(&address).unwrap_or_else(|| panic!("no {address}"));
        assert!(is_current, "{document}: {address}");
        if found.insert(address) {
            left.extend(references(served));
        }
    }
    found
}

#[test]
fn the_list_has_every_file_of_the_directory() {
    let mut there = Vec::new();
    read(&home(), "", &mut there).unwrap();
    there.sort();
    let listed: Vec<(String, String)> =
        FILES.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect();
    let names = |files: &[(String, String)]| -> Vec<String> {
        files.iter().map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(names(&listed), names(&there), "FILES is to be {:#?}", names(&there));
    assert_eq!(listed, there);
}

#[test]
fn every_reference_of_every_page_leads_to_what_is_served() {
    for auth in ALL {
        let site = Site::built_in(&told(auth)).unwrap();
        assert_eq!(site.documents.len(), 9);
        for (name, document) in &site.documents {
            assert!(!fetched(&site, name).is_empty(), "{name}");
            let text = text(document);
            // Operators sign in in one way only.
            let is_told = text.contains(&format!("name=\"boxoffice-auth\" content=\"{auth}\""));
            assert_eq!(is_told, !name.starts_with("ops/"), "{name}");
            assert!(!text.contains("{{"), "{name}");
        }
    }
}

#[test]
fn each_script_of_fans_has_a_document() {
    let site = site();
    let documents = site.documents.iter().filter(|(name, _)| name.starts_with("fan/"));
    for (name, document) in documents {
        let script = name.replace(".html", ".js");
        let path = &site.assets[&script].path;
        assert!(
            text(document).contains(&format!("<script type=\"module\" src=\"{path}\">")),
            "{name}"
        );
    }
    let more = with(&[("fan/more.js", "1")]).unwrap();
    assert!(more.documents.contains_key("fan/more.html"));
}

/// It is one document, and so has no module in common with the others.
#[test]
fn the_waiting_page_keeps_time_as_the_others_do() {
    let file = |name: &str| FILES.iter().find(|(other, _)| *other == name).unwrap().1;
    let [shared, waiting] = ["lib/kit.js", "wait/wait.js"].map(file);
    let clock = |text| between(text, "function setClock(", "\n}\n")[0].split_once('\n').unwrap().1;
    assert_eq!(clock(shared), clock(waiting));
    let now = "const serverNow = () =>";
    assert_eq!(between(shared, now, "\n"), between(waiting, now, "\n"));
}

#[test]
fn no_page_knows_of_another_host() {
    let site = site();
    let assets = site.assets.iter().map(|(name, asset)| (name, &asset.served));
    for (name, served) in site.documents.iter().chain(assets) {
        // The name of a namespace is no address.
        let text = text(served).replace("http://www.w3.org/2000/svg", "");
        let lines = text.lines().map(|line| line.split("// ").next().unwrap());
        for line in lines {
            assert!(!line.contains("://"), "{name}: {line}");
            assert!(
                !["\"//", "'//", "url(", "@import"].iter().any(|it| line.contains(it)),
                "{name}: {line}"
            );
        }
    }
}

#[test]
fn hashes_change_with_what_is_served_and_with_nothing_else() {
    let before = site();
    let refers = |served: &Served, path: &str| {
        references(served).iter().any(|address| path.strip_prefix(ASSETS) == Some(address))
    };
    // A module that others import.
    let is_imported = |name: &&str| {
        let path = &before.assets.get(*name).unwrap().path;
        before.assets.values().any(|other| refers(&other.served, path))
    };
    let mut modules = FILES.iter().map(|(name, _)| *name).filter(|name| name.ends_with(".js"));
    let module = modules.find(is_imported).unwrap();
    let path = &before.assets[module].path;
    let script = FILES.iter().find(|(name, _)| *name == module).unwrap().1;
    let after = with(&[(module, &format!("{script}\nexport const changed = 1;\n"))]).unwrap();
    let changed = |name: &str| before.assets[name].path != after.assets[name].path;
    assert!(changed(module));
    assert!(!changed("fan/fan.css") && !changed("icon.svg"));
    for (name, asset) in &before.assets {
        assert!(!refers(&asset.served, path) || changed(name), "{name}");
    }
    for (name, document) in &before.documents {
        let affected = fetched(&before, name).contains(path.strip_prefix(ASSETS).unwrap());
        assert_eq!(document.hash != after.documents[name].hash, affected, "{name}");
    }
    // An address from another version leads to what there is now, and says so.
    let (served, is_current) = after.asset(path.strip_prefix(ASSETS).unwrap()).unwrap();
    assert_eq!((text(served), is_current), (text(&after.assets[module].served), false));
    let jwt = Site::built_in(&told("jwt")).unwrap();
    assert_ne!(jwt.documents["fan/index.html"].hash, before.documents["fan/index.html"].hash);
}

#[test]
fn only_addresses_with_a_hash_lead_to_an_asset() {
    let site = site();
    let path = site.assets["icon.svg"].path.strip_prefix(ASSETS).unwrap();
    assert!(site.asset(path).is_some_and(|(_, is_current)| is_current));
    let upper = path.to_uppercase();
    let cut = path.replace(".svg", "");
    let deeper = format!("x/../{path}");
    for wrong in [
        "",
        "icon.svg",
        "icon-.svg",
        "icon-0123.svg",
        "icon-0123456789abcdeg.svg",
        "icon-0123456789ABCDEF.svg",
        "wait/index-0123456789abcdef.html",
        "0123456789abcdef",
        "-0123456789abcdef.svg",
        "../Cargo-0123456789abcdef.toml",
        &upper,
        &cut,
        &deeper,
    ] {
        assert!(site.asset(wrong).is_none(), "{wrong}");
    }
}

#[test]
fn a_policy_names_what_is_in_the_document_and_nothing_else() {
    let site = site();
    for (name, document) in &site.documents {
        let policy = document.policy.as_ref().unwrap().to_str().unwrap();
        let (text, mut inlined) = (text(document), 0);
        let mut outside = text.to_owned();
        for (element, directive) in [("script", "script-src "), ("style", "style-src ")] {
            let allowed = between(policy, directive, ";")[0];
            let mut allowed_here: Vec<String> = Vec::new();
            let files = ["<script type=\"module\" src=", "<link rel=\"stylesheet\""];
            if files.iter().any(|it| text.contains(it)) {
                allowed_here.push("'self'".into());
            }
            for part in between(text, &format!("<{element}"), &format!("</{element}>")) {
                let (attributes, inside) = part.split_once('>').unwrap();
                assert_eq!(attributes.contains("src="), inside.is_empty(), "{name}: {part}");
                if !inside.is_empty() {
                    let digest = BASE64.encode_to_string(Sha256::digest(inside));
                    allowed_here.push(format!("'sha256-{digest}'"));
                    outside = outside.replace(inside, "");
                    inlined += 1;
                }
            }
            assert_eq!(allowed, allowed_here.join(" "), "{name}");
        }
        assert_eq!(inlined, if name == "wait/index.html" { 2 } else { 1 }, "{name}");
        // Nothing else in it could run, or be styled.
        for attribute in outside.split('<').flat_map(|tag| tag.split([' ', '\n']).skip(1)) {
            let name_of_it = attribute.split('=').next().unwrap();
            let is_code = name_of_it == "style" || name_of_it.starts_with("on");
            assert!(!is_code || name_of_it == attribute, "{name}: {attribute}");
        }
        for strict in [
            "default-src 'none'; ",
            "base-uri 'none'; ",
            "frame-ancestors 'none'; ",
            "require-trusted-types-for 'script'; trusted-types ",
        ] {
            assert!(policy.contains(strict), "{name}: {policy}");
        }
        let types = if name == WORKER_PAGE { WORKER_TYPES } else { "'none'" };
        assert!(policy.ends_with(&format!("trusted-types {types}")), "{name}: {policy}");
    }
}

#[test]
fn pages_are_small() {
    let site = site();
    for (name, document) in &site.documents {
        let assets = fetched(&site, name);
        let bytes = |it: &String| site.asset(it).unwrap().0.gzip().len();
        // A browser fetches the texts of one language.
        let without = |other: &str| -> usize {
            let is_other = |it: &str| it.contains("i18n/") && it.contains(&format!("{other}-"));
            assets.iter().filter(|it| !is_other(it)).map(bytes).sum()
        };
        let beside = without("en").max(without("ko"));
        let waits = name == "wait/index.html";
        let kib = match name.as_str() {
            "wait/index.html" => 14,
            // With all screens of the console.
            name if name.starts_with("ops/") => 120,
            _ => 40,
        };
        let (own, max) = (document.gzip().len(), kib * 1024);
        let icon = site.assets["icon.svg"].served.gzip().len();
        assert!(own + beside - icon <= max, "{name}: {own} and {beside} bytes");
        // All of it is in the one document.
        assert!(!waits || assets.len() == 1, "{assets:?}");
    }
}

#[test]
fn compressed_is_the_same() {
    let site = site();
    for served in site.documents.values().chain(site.assets.values().map(|it| &it.served)) {
        let mut plain = Vec::new();
        let compressed = served.gzip();
        let mut decoder = flate2::read::GzDecoder::new(&compressed[..]);
        std::io::Read::read_to_end(&mut decoder, &mut plain).unwrap();
        assert_eq!(plain, served.body);
    }
}

#[test]
fn lines_that_are_only_a_comment_are_left_out() {
    for (text, kept) in [
        ("", ""),
        ("// a\nb // c\n  // d\ne", "b // c\ne"),
        ("/* a */\n /** b */  \nc /* d */\n", "c /* d */\n"),
        ("/** @type {A} */ const a = 1; /* b */\n", "const a = 1; /* b */\n"),
        ("a\n/**\n * b\n // c\n */\nd", "a\nd"),
        ("/*\n b */ c\n", "c\n"),
        ("a = 1\n  / 2 // b\n", "a = 1\n/ 2 // b\n"),
        ("\ta {\n    b: c;\n  }\n\n", "a {\nb: c;\n}\n\n"),
        ("a { }\n/* b */\n.c { }\n", "a { }\n.c { }\n"),
        ("const f = (/** @type {A} */ a, /** @type {B}*/b) => a;", "const f = (a, b) => a;"),
        ("const a = 'http://b';\n", "const a = 'http://b';\n"),
        ("/* a", ""),
    ] {
        assert_eq!(without_comments(text), kept, "{text:?}");
    }
    let site = site();
    for (name, asset) in &site.assets {
        let is_comment =
            |line: &str| line.starts_with("//") || line.starts_with("/*") || line.contains("/** @");
        assert!(!text(&asset.served).lines().map(str::trim).any(is_comment), "{name}");
    }
}

/// What a line begins with is left out, so it must be of no meaning.
#[test]
fn no_text_of_a_script_has_several_lines() {
    let scripts = FILES.iter().filter(|(name, _)| name.ends_with(".js"));
    for (name, text) in scripts {
        for line in text.lines() {
            assert!(line.matches('`').count().is_multiple_of(2), "{name}: {line}");
        }
    }
    let documents = FILES.iter().filter(|(name, _)| name.ends_with(".html"));
    for (name, text) in documents {
        assert!(!text.contains("<pre") && !text.contains("<textarea"), "{name}");
    }
}

const HOSTILE: &str =
    "\"><script>alert(1)</script> data-inline {{auth}} {{page}} '/assets/icon.svg' & \u{1f3b5}";

fn of_an_organiser() -> (tempfile::TempDir, Told) {
    let directory = tempfile::tempdir().unwrap();
    let logo = directory.path().join("logo");
    std::fs::write(
        &logo,
        "<svg xmlns=\"http://www.w3.org/2000/svg\"><script>alert(1)</script></svg>",
    )
    .unwrap();
    let name: String = HOSTILE.chars().take(60).collect();
    let config = PagesConfig {
        organiser: Some(name),
        logo: Some(logo),
        colour: Some("#ff0000".into()),
        notice_en: Some(HOSTILE.repeat(4)),
        ..PagesConfig::default()
    };
    let sites = vec!["https://shop.example".to_owned(), "http://[::1]:8081".to_owned()];
    let told = Told { auth: "none", sites, organiser: Organiser::new(&config).unwrap() };
    (directory, told)
}

#[test]
fn pages_are_the_organisers_and_what_these_say_is_nothing_but_text() {
    let (_directory, told) = of_an_organiser();
    let site = Site::built_in(&told).unwrap();
    let plain = self::site();
    // Those of operators are the program's.
    let documents = site.documents.iter().filter(|(name, _)| !name.starts_with("ops/"));
    for (name, document) in documents {
        let (text, before) = (text(document), self::text(&plain.documents[name]));
        let scripts = |text: &str| text.matches("<script").count();
        assert_eq!(scripts(text), scripts(before), "{name}");
        assert!(!text.contains("alert(1)</script>"), "{name}");
        let title = between(text, "<title>", "</title>")[0];
        assert!(
            title.starts_with("&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt; data-inline"),
            "{title}"
        );
        let brand = between(text, "<a class=\"brand\" href=\"/\">", "</a>")[0];
        let logo = between(brand, "src=\"", "\"")[0];
        assert_eq!(brand, format!("<img class=\"logo\" src=\"{logo}\" alt=\"{title}\">"), "{name}");
        let (served, is_current) = site.asset(logo.strip_prefix(ASSETS).unwrap()).unwrap();
        assert!(is_current && served.media_type == "image/svg+xml");
        let policy = served.policy.as_ref().unwrap().to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && policy.ends_with("sandbox"), "{policy}");
        assert!(text.contains(
            "<meta name=\"boxoffice-sites\" content=\"https://shop.example http://[::1]:8081\">"
        ));
        let notice = between(text, "<meta name=\"boxoffice-notice\" content=\"", "\"")[0];
        let (served, _) = site.asset(notice.strip_prefix(ASSETS).unwrap()).unwrap();
        let said: serde_json::Value = serde_json::from_slice(&served.body).unwrap();
        assert_eq!(said["ko"], HOSTILE.repeat(4));
        // Without one there is nothing of all this.
        assert!(
            before.contains("<title>boxoffice</title>")
                && before.contains("href=\"/\">boxoffice</a>")
        );
        assert!(!before.contains("boxoffice-sites") && !before.contains("boxoffice-notice"));
    }
    let waits = site.document(WAITING_PAGE).unwrap().gzip().len();
    assert!(waits <= WAITING_PAGE_MAX, "{waits}");
}

#[test]
fn a_colour_is_that_of_every_page() {
    let (_directory, told) = of_an_organiser();
    let site = Site::built_in(&told).unwrap();
    let css =
        FILES.iter().filter(|(name, text)| name.ends_with(".css") && text.contains("--accent:"));
    let mut sheets = 0;
    for (name, _) in css {
        let text = text(&site.assets[*name].served);
        assert!(text.contains("--on-accent: #ffffff;"), "{name}");
        for other in ["#4038d4", "#ecebfd", "#a9a4ff", "#26254a"] {
            assert!(!text.contains(other), "{name}: {other}");
        }
        sheets += 1;
    }
    assert!(sheets >= 2);
    assert!(!text(&site.assets["icon.svg"].served).contains("#4038d4"));
}

#[test]
fn sites_beyond_the_bound_of_the_waiting_page_are_refused() {
    let mut config = Config::default();
    assert!(Pages::new(&config).is_ok_and(|pages| pages.is_some()));
    // What cannot be compressed.
    let site = |n: u64| format!("https://{}.example", hash_of(&n.to_be_bytes()));
    config.gate.sites = (0..500).map(site).collect();
    let why = Pages::new(&config).err().unwrap();
    assert!(why.contains("gate.sites"), "{why}");
    config.pages.enabled = false;
    assert!(Pages::new(&config).is_ok_and(|pages| pages.is_none()));
}

#[test]
fn what_cannot_be_served_is_said_by_name() {
    for (changes, said) in [
        (
            &[("lib/new.js", "import '/assets/lib/none.js';")][..],
            "lib/new.js: there is no file lib/none.js",
        ),
        (
            &[
                ("lib/a-new.js", "import \"/assets/lib/new.js\";"),
                ("lib/new.js", "import '/assets/lib/a-new.js';"),
            ],
            "lib/a-new.js refers to itself",
        ),
        (
            &[("fan/page.html", "<a href=\"/assets/wait/index.html\">")],
            "wait/index.html: such a file is no asset",
        ),
        (&[("fan/x.exe", "")], "fan/x.exe: such a file is no asset"),
        (&[("wait/wait.js", "'</SCRIPT>'")], "</script"),
        (&[("wait/wait.js", "'<!-- <script>'")], "<!--"),
        (&[("wait/wait.css", "a{}\r\n")], "carriage return"),
        (&[("wait/wait.css", "a::after { content: '</style>' }")], "</style"),
        (
            &[("wait/index.html", "<link href=\"/assets/wait/wait.css\" data-inline>")],
            "wait/index.html: data-inline",
        ),
    ] {
        let why = with(changes).err().unwrap_or_else(|| panic!("{said}: nothing is wrong"));
        assert!(why.contains(said), "{why:?} does not say {said:?}");
    }
    // A word of a comment leads nowhere.
    assert!(with(&[("lib/new.js", "// See /assets/lib/none.js.\nexport const one = 1;")]).is_ok());
}

#[test]
fn a_directory_is_read_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    assert!(Site::read(&directory.path().join("none"), &told("none")).is_err());
    std::fs::create_dir(directory.path().join("fan")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("types.d.ts", "export {}");
    write("fan/page.html", "{{auth}} {{page}} \"/assets/a.js\"");
    write("fan/index.js", "");
    write("a.js", "1");
    let read = || Site::read(directory.path(), &told("jwt"));
    let first = read().unwrap();
    assert_eq!(
        text(&first.documents["fan/index.html"]),
        format!("jwt index \"{}\"", first.assets["a.js"].path)
    );
    assert_eq!((first.documents.len(), first.assets.len()), (1, 2));
    write("a.js", "2");
    assert_ne!(read().unwrap().assets["a.js"].path, first.assets["a.js"].path);
    std::fs::write(directory.path().join("b.js"), b"\xff").unwrap();
    assert!(read().err().unwrap().contains("b.js"));
}
