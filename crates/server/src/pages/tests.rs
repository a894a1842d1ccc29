//! The pages that are in the program, and what is wrong with others.

use std::collections::BTreeSet;

use super::*;

const ALL: [&str; 3] = ["none", "jwt", "sign-in"];

fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pages")
}

fn site() -> Site {
    Site::built_in("none").unwrap()
}

fn with(changes: &[(&str, &str)]) -> Result<Site, String> {
    let files = FILES.iter().filter(|(name, _)| changes.iter().all(|(other, _)| other != name));
    let files = files.chain(changes).map(|(name, text)| ((*name).into(), (*text).into()));
    Site::new(files, "none")
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
        let site = Site::built_in(auth).unwrap();
        assert_eq!(site.documents.len(), 7);
        for (name, document) in &site.documents {
            assert!(!fetched(&site, name).is_empty(), "{name}");
            let text = text(document);
            assert!(text.contains(&format!("name=\"boxoffice-auth\" content=\"{auth}\"")));
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
    let jwt = Site::built_in("jwt").unwrap();
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
            let mut digests: Vec<String> = Vec::new();
            for part in between(text, &format!("<{element}"), &format!("</{element}>")) {
                let (attributes, inside) = part.split_once('>').unwrap();
                assert_eq!(attributes.contains("src="), inside.is_empty(), "{name}: {part}");
                if !inside.is_empty() {
                    let digest = BASE64.encode_to_string(Sha256::digest(inside));
                    digests.push(format!("'sha256-{digest}'"));
                    outside = outside.replace(inside, "");
                }
            }
            inlined += digests.len();
            let expected = if digests.is_empty() { "'self'".into() } else { digests.join(" ") };
            assert_eq!(allowed, expected, "{name}");
        }
        assert_eq!(inlined, if name == "wait/index.html" { 2 } else { 0 }, "{name}");
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
            "require-trusted-types-for 'script'; trusted-types 'none'",
        ] {
            assert!(policy.contains(strict), "{name}: {policy}");
        }
    }
}

#[test]
fn pages_are_small() {
    let site = site();
    for (name, document) in &site.documents {
        let assets = fetched(&site, name);
        let beside: usize = assets.iter().map(|it| site.asset(it).unwrap().0.gzip().len()).sum();
        let waits = name == "wait/index.html";
        let (own, max) = (document.gzip().len(), if waits { 14 * 1024 } else { 40 * 1024 });
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
        ("/** @type {A} */ const a = 1; /* b */\n", " const a = 1; /* b */\n"),
        ("a\n/**\n * b\n // c\n */\nd", "a\nd"),
        ("/*\n b */ c\n", " c\n"),
        ("a = 1\n  / 2 // b\n", "a = 1\n  / 2 // b\n"),
        ("a { }\n/* b */\n.c { }\n", "a { }\n.c { }\n"),
        ("const a = 'http://b';\n", "const a = 'http://b';\n"),
        ("/* a", ""),
    ] {
        assert_eq!(without_comments(text), kept, "{text:?}");
    }
    let site = site();
    for (name, asset) in &site.assets {
        let is_comment = |line: &str| line.starts_with("//") || line.starts_with("/*");
        assert!(!text(&asset.served).lines().map(str::trim).any(is_comment), "{name}");
    }
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
    assert!(Site::read(&directory.path().join("none"), "none").is_err());
    std::fs::create_dir(directory.path().join("fan")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("types.d.ts", "export {}");
    write("fan/page.html", "{{auth}} {{page}} \"/assets/a.js\"");
    write("fan/index.js", "");
    write("a.js", "1");
    let read = || Site::read(directory.path(), "jwt");
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
