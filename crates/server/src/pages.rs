//! The pages for fans: documents, and the scripts, styles and pictures that these are made of.
//!
//! They are files of `crates/server/pages`, written as browsers take them, and are in the program. What is done to
//! them is done once, at the start:
//!
//! - `/assets/NAME.EXT` becomes `/assets/NAME-HASH.EXT`, so that browsers keep such a file for good. The
//!   hash is over what is served, so what a file refers to comes before it.
//! - Lines of scripts and style sheets that are nothing but a comment are left out, and types within a line
//!   (`/** @type … */`), and the spaces that a line begins with: they were an eighth of the waiting page. So no text may
//!   have several lines.
//! - `data-inline` puts a style sheet or a script into its document. Each round trip costs who has a slow
//!   connection as much as many kilobytes. The policy of the document names what was put there by its digest.
//! - `{{auth}}` becomes what the pages are told of people: `none`, `jwt`, or `sign-in` where they can do that here;
//!   `{{organiser}}` the organiser's name and `{{brand}}` that or their
//!   logo; their colour replaces that of the style sheets. `{{more}}` becomes what only some services have to tell:
//!   sites that may be gone back to, and where a notice is.
//! - `fan/page.html` becomes the document of each script of `fan/`, whose name stands for `{{page}}`, and links to what
//!   it imports for `{{preload}}`: they differ by nothing else.
//!
//! What does not belong here: requests and headers; see `http::pages`.

mod organiser;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use axum::body::Bytes;
use axum::http::HeaderValue;
use base64_simd::STANDARD as BASE64;
use boxoffice_backends::store;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

pub(crate) use self::organiser::Organiser;
use crate::config::Config;

/// Files by their names in the directory of the pages.
macro_rules! files {
    ($($name:literal,)+) => {
        &[$(($name, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/pages/", $name))),)+]
    };
}

/// The files that are in the program.
const FILES: &[(&str, &str)] = files![
    "fan/concert.js",
    "fan/fan.css",
    "fan/index.js",
    "fan/me.js",
    "fan/page.html",
    "fan/pay.js",
    "fan/seats.js",
    "fan/ticket.js",
    "i18n/en.js",
    "i18n/ko.js",
    "i18n/ops-en.js",
    "i18n/ops-ko.js",
    "icon.svg",
    "lib/hall.js",
    "lib/kit.js",
    "lib/language.js",
    "lib/worker.js",
    "ops/audit.js",
    "ops/concerts.js",
    "ops/index.html",
    "ops/log.js",
    "ops/login.html",
    "ops/login.js",
    "ops/now.js",
    "ops/operators.js",
    "ops/ops.css",
    "ops/orders.js",
    "ops/queues.js",
    "ops/sales.js",
    "ops/shell.js",
    "ops/tickets.js",
    "wait/index.html",
    "wait/wait.css",
    "wait/wait.js",
];

/// What each document of `fan/` is made of.
const FAN_PAGE: &str = "fan/page.html";
/// What keeps tickets for where there is no network, the one document that sets it up, and the policy of Trusted Types
/// by which it does: scripts are named by text nowhere else.
pub(crate) const WORKER: &str = "lib/worker.js";
const WORKER_PAGE: &str = "fan/ticket.html";
const WORKER_TYPES: &str = "boxoffice";
/// The page to wait on.
const WAITING_PAGE: &str = "wait/index.html";
/// What begins the address of everything but a document.
pub(crate) const ASSETS: &str = "/assets/";
/// Characters of a hash in an address: 64 bits.
const HASH_CHARS: usize = 16;
/// Bytes of the waiting page, compressed: with its head it is to be in what TCP sends before it hears of the other
/// side.
const WAITING_PAGE_MAX: usize = 14 * 1_024;
/// What a picture may do that somebody opens by itself. It could be a document with a script.
const PICTURE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; sandbox";
/// How a document takes in a style sheet and a script, with the name in between.
const STYLE: [&str; 2] = ["<link rel=\"stylesheet\" href=\"", "\" data-inline>"];
const SCRIPT: [&str; 2] = ["<script src=\"", "\" type=\"module\" data-inline></script>"];

/// Where pages come from.
pub(crate) enum Pages {
    /// From the program.
    Built(Site),
    /// From a directory, whenever somebody asks.
    Directory {
        /// The directory.
        from: PathBuf,
        /// What the pages are told.
        told: Told,
    },
}

/// What pages are told of the service.
#[derive(Clone)]
pub(crate) struct Told {
    /// How people are known, as pages are told.
    auth: &'static str,
    /// The sites that may be gone back to.
    sites: Vec<String>,
    /// Whose pages they are.
    organiser: Organiser,
}

impl Pages {
    /// The pages of a configuration; none where they are not served.
    ///
    /// # Errors
    /// What is wrong with those in the program.
    pub(crate) fn new(config: &Config) -> Result<Option<Self>, String> {
        if !config.pages.enabled {
            return Ok(None);
        }
        let organiser =
            Organiser::new(&config.pages).map_err(|(key, why)| format!("{key} {why}"))?;
        let told =
            Told { auth: config.auth.for_pages(), sites: config.gate.sites.clone(), organiser };
        let Some(from) = &config.pages.directory else {
            let site = Site::built_in(&told)?;
            let waits = site.document(WAITING_PAGE).map_or(0, |page| page.gzip().len());
            if waits > WAITING_PAGE_MAX {
                return Err(format!(
                    "the waiting page has {waits} bytes, and may have {WAITING_PAGE_MAX}: gate.sites has too many"
                ));
            }
            return Ok(Some(Self::Built(site)));
        };
        Ok(Some(Self::Directory { from: from.clone(), told }))
    }
}

/// All pages, as they are served.
pub(crate) struct Site {
    documents: HashMap<String, Served>,
    assets: HashMap<String, Asset>,
}

/// Something that is served.
pub(crate) struct Served {
    /// Its media type.
    pub(crate) media_type: &'static str,
    /// What it may do, as a Content-Security-Policy; only documents have one.
    pub(crate) policy: Option<HeaderValue>,
    /// Its bytes.
    pub(crate) body: Bytes,
    hash: String,
    gzip: OnceLock<Bytes>,
}

/// What documents are made of.
struct Asset {
    served: Served,
    /// Its address.
    path: String,
}

impl Served {
    fn new(media_type: &'static str, body: impl Into<Bytes>, policy: Option<HeaderValue>) -> Self {
        let body = body.into();
        let hash = hash_of(&body);
        Self { media_type, policy, body, hash, gzip: OnceLock::new() }
    }

    /// Tells it from what it was before.
    pub(crate) fn hash(&self) -> &str {
        &self.hash
    }

    /// Its bytes compressed, which is done once.
    pub(crate) fn gzip(&self) -> Bytes {
        self.gzip.get_or_init(|| gzip(&self.body)).clone()
    }
}

impl Site {
    /// The pages that are in the program.
    ///
    /// # Errors
    /// What is wrong with a file, by name.
    pub(crate) fn built_in(told: &Told) -> Result<Self, String> {
        Self::new(FILES.iter().map(|(name, text)| ((*name).into(), (*text).into())), told)
    }

    /// The pages of a directory as they are now.
    ///
    /// # Errors
    /// What cannot be read, or what is wrong with a file, by name.
    pub(crate) fn read(directory: &Path, told: &Told) -> Result<Self, String> {
        let mut files = Vec::new();
        read(directory, "", &mut files)?;
        Self::new(files, told)
    }

    fn new(files: impl IntoIterator<Item = (String, String)>, told: &Told) -> Result<Self, String> {
        let files: BTreeMap<String, String> = files.into_iter().collect();
        let mut builder = Builder {
            files: &files,
            told,
            assets: HashMap::new(),
            words: Vec::new(),
            under_way: Vec::new(),
        };
        builder.tell();
        let mut documents = HashMap::new();
        for (name, text) in &files {
            if name == FAN_PAGE {
                let scripts = files.keys().filter_map(|it| it.strip_prefix("fan/"));
                for page in scripts.filter_map(|it| it.strip_suffix(".js")) {
                    let text = text.replace("{{page}}", page);
                    let text =
                        text.replace("{{preload}}", &builder.preload(&format!("fan/{page}.js")));
                    let name = format!("fan/{page}.html");
                    let document = builder.document(&name, &text)?;
                    documents.insert(name, document);
                }
            } else if name.ends_with(".html") {
                documents.insert(name.clone(), builder.document(name, text)?);
            } else {
                builder.asset(name)?;
            }
        }
        Ok(Self { documents, assets: builder.assets })
    }

    /// The document of a file.
    pub(crate) fn document(&self, name: &str) -> Option<&Served> {
        self.documents.get(name)
    }

    /// What is at an address under [`ASSETS`], and whether it is what that address named when it was made:
    /// it may come from a document of another version. There is something to say then, too, and much
    /// better than nothing while versions change.
    pub(crate) fn asset(&self, address: &str) -> Option<(&Served, bool)> {
        let (name, hash) = parted(address)?;
        let served = &self.assets.get(&name)?.served;
        Some((served, hash == served.hash))
    }
}

/// Whether an address is that of a file, in whichever version.
pub(crate) fn is_of(address: &str, name: &str) -> bool {
    parted(address).is_some_and(|(its, _)| its == name)
}

/// Name and hash of the address of an asset.
fn parted(address: &str) -> Option<(String, &str)> {
    let (stem, extension) = address.rsplit_once('.')?;
    let (stem, hash) = stem.rsplit_once('-')?;
    let is_hash = hash.len() == HASH_CHARS
        && hash.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    is_hash.then(|| (format!("{stem}.{extension}"), hash))
}

fn hash_of(bytes: &[u8]) -> String {
    let mut hash = store::Digest(Sha256::digest(bytes).into()).to_string();
    hash.truncate(HASH_CHARS);
    hash
}

fn media_type(name: &str) -> Option<&'static str> {
    Some(match name.rsplit_once('.')?.1 {
        "html" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "json" => "application/json",
        "png" => "image/png",
        "svg" => "image/svg+xml",
        _ => return None,
    })
}

/// Whether a file is only for those who write the others.
fn is_served(name: &str) -> bool {
    !name.ends_with(".d.ts")
}

fn read(directory: &Path, prefix: &str, files: &mut Vec<(String, String)>) -> Result<(), String> {
    let failed = |error| format!("{}: {error}", directory.display());
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let path = entry.path();
        if entry.file_type().map_err(failed)?.is_dir() {
            read(&path, &format!("{name}/"), files)?;
        } else if is_served(&name) {
            let text = fs::read_to_string(&path);
            files.push((name, text.map_err(|error| format!("{}: {error}", path.display()))?));
        }
    }
    Ok(())
}

fn gzip(bytes: &[u8]) -> Bytes {
    use std::io::Write;
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 3), Compression::best());
    // Writing to a vector does not fail.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default().into()
}

/// Makes files into what is served.
struct Builder<'f> {
    files: &'f BTreeMap<String, String>,
    told: &'f Told,
    /// What stands for what in documents.
    words: Vec<(&'static str, String)>,
    assets: HashMap<String, Asset>,
    /// The assets that are being made, each for the one before it.
    under_way: Vec<String>,
}

impl Builder<'_> {
    /// Makes what pages are told into assets and words.
    fn tell(&mut self) {
        let Told { auth, sites, organiser } = self.told;
        let name = escaped(organiser.name.as_deref().unwrap_or("boxoffice"));
        let mut brand = name.clone();
        if let Some(logo) = &organiser.logo {
            let file = format!("organiser.{}", logo.extension);
            let policy = Some(HeaderValue::from_static(PICTURE_POLICY));
            let path = self.keep(&file, logo.bytes.clone(), policy);
            brand = format!("<img class=\"logo\" src=\"{path}\" alt=\"{name}\">");
        }
        let mut more = String::new();
        if !sites.is_empty() {
            more += &format!("<meta name=\"boxoffice-sites\" content=\"{}\">", sites.join(" "));
        }
        if let Some(notice) = organiser.notice() {
            let path = self.keep("notice.json", notice, None);
            more += &format!("<meta name=\"boxoffice-notice\" content=\"{path}\">");
        }
        self.words = vec![
            ("{{auth}}", (*auth).to_owned()),
            ("{{organiser}}", name),
            ("{{brand}}", brand),
            ("{{more}}", more),
        ];
    }

    /// Takes in an asset that is no file of the pages. Returns its address.
    fn keep(&mut self, name: &str, body: impl Into<Bytes>, policy: Option<HeaderValue>) -> String {
        let served = Served::new(media_type(name).unwrap_or_default(), body, policy);
        let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
        let path = format!("{ASSETS}{stem}-{}.{extension}", served.hash);
        self.assets.insert(name.to_owned(), Asset { served, path: path.clone() });
        path
    }

    /// Makes an asset, unless it is made.
    fn asset(&mut self, name: &str) -> Result<&Asset, String> {
        if !self.assets.contains_key(name) {
            if media_type(name).is_none() || name.ends_with(".html") {
                return Err(format!("{name}: such a file is no asset"));
            }
            if self.under_way.iter().any(|other| other == name) {
                return Err(format!("{name} refers to itself, by {}", self.under_way.join(", ")));
            }
            self.under_way.push(name.to_owned());
            let text = self.files.get(name).ok_or_else(|| format!("there is no file {name}"))?;
            let mut text = self.with_hashes(name, text)?;
            self.under_way.pop();
            if name.ends_with(".js") || name.ends_with(".css") {
                text = without_comments(&text);
            }
            if let Some(palette) = &self.told.organiser.palette
                && !name.ends_with(".js")
            {
                text = palette.applied_to(&text);
            }
            self.keep(name, text, None);
        }
        self.assets.get(name).ok_or_else(|| format!("{name}: not made"))
    }

    /// Links to all that a script imports: a browser is to fetch it at once, and not one after the other.
    fn preload(&self, script: &str) -> String {
        let mut found = Vec::new();
        self.find_imports(script, &mut found);
        let link = |name: &String| format!("<link rel=\"modulepreload\" href=\"{ASSETS}{name}\">");
        found.iter().map(link).collect::<Vec<_>>().join("\n    ")
    }

    fn find_imports(&self, script: &str, found: &mut Vec<String>) {
        let text = self.files.get(script).map_or("", String::as_str);
        for part in text.split(&format!("from '{ASSETS}")).skip(1) {
            let name = part.split('\'').next().unwrap_or_default();
            if !found.iter().any(|other| other == name) {
                found.push(name.to_owned());
                self.find_imports(name, found);
            }
        }
    }

    /// The text of a file, in which each reference leads to what is served.
    fn with_hashes(&mut self, name: &str, text: &str) -> Result<String, String> {
        let mut parts = text.split(ASSETS);
        let mut done = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let quote = done.chars().next_back().filter(|c| matches!(c, '"' | '\''));
            // Without a quotation mark it is a word of a comment.
            let referred = quote.and_then(|quote| part.split_once(quote));
            match referred {
                Some((target, _)) => {
                    let asset = self.asset(target).map_err(|why| format!("{name}: {why}"))?;
                    done.push_str(&asset.path);
                    done.push_str(&part[target.len()..]);
                }
                None => {
                    done.push_str(ASSETS);
                    done.push_str(part);
                }
            }
        }
        Ok(done)
    }

    fn document(&mut self, name: &str, text: &str) -> Result<Served, String> {
        let text = without_indents(&self.with_hashes(name, text)?);
        let to_inline = text.matches("data-inline").count();
        let (text, styles) = self.with_inlined(&text, STYLE, "style")?;
        let (text, scripts) = self.with_inlined(&text, SCRIPT, "script type=\"module\"")?;
        if styles.len() + scripts.len() != to_inline {
            return Err(format!("{name}: data-inline in a form that is not known"));
        }
        // Last: whatever they are, nothing is made of them.
        let text = with_words(&text, &self.words);
        let policy = format!(
            "default-src 'none'; script-src {}; style-src {}; img-src 'self'; connect-src 'self'; \
             manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; \
             require-trusted-types-for 'script'; trusted-types {}",
            sources(&scripts, text.contains("<script type=\"module\" src=")),
            sources(&styles, text.contains("<link rel=\"stylesheet\"")),
            if name == WORKER_PAGE { WORKER_TYPES } else { "'none'" },
        );
        let policy = HeaderValue::try_from(policy).map_err(|error| format!("{name}: {error}"))?;
        Ok(Served::new("text/html; charset=utf-8", text, Some(policy)))
    }

    /// A document with what it takes in, and the digests of that.
    fn with_inlined(
        &self,
        text: &str,
        [before, after]: [&str; 2],
        element: &str,
    ) -> Result<(String, Vec<String>), String> {
        let mut parts = text.split(before);
        let mut done = parts.next().unwrap_or_default().to_owned();
        let mut digests = Vec::new();
        let tag = element.split(' ').next().unwrap_or(element);
        for part in parts {
            let inlined = part
                .split_once('"')
                .filter(|(address, _)| part[address.len()..].starts_with(after));
            let Some((address, _)) = inlined else {
                done.push_str(before);
                done.push_str(part);
                continue;
            };
            let inside = self.assets.values().find(|asset| asset.path == address);
            let inside = inside.and_then(|asset| str::from_utf8(&asset.served.body).ok());
            let inside = inside.ok_or_else(|| format!("there is no file {address}"))?;
            // A browser would see the end of the element in it, or something else than is digested.
            let ends = format!("</{tag}");
            if inside.to_ascii_lowercase().contains(&ends)
                || inside.contains("<!--")
                || inside.contains('\r')
            {
                return Err(format!("{address}: {ends}, <!-- or a carriage return in it"));
            }
            digests.push(BASE64.encode_to_string(Sha256::digest(inside)));
            done.push_str(&format!("<{element}>{inside}</{tag}>"));
            done.push_str(&part[address.len() + after.len()..]);
        }
        Ok((done, digests))
    }
}

/// A text as what stands between two tags or in an attribute.
fn escaped(text: &str) -> String {
    let escapes = [('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;"), ('"', "&quot;")];
    escapes.iter().fold(text.to_owned(), |text, (char, escape)| text.replace(*char, escape))
}

/// A text with words in their places. None is looked for in another.
fn with_words(text: &str, words: &[(&str, String)]) -> String {
    let mut done = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("{{") {
        let (before, from) = rest.split_at(at);
        done.push_str(before);
        let word = words.iter().find_map(|(place, word)| Some((word, from.strip_prefix(place)?)));
        let (word, behind) = word.map_or(("{{", &from[2..]), |(word, rest)| (word, rest));
        done.push_str(word);
        rest = behind;
    }
    done.push_str(rest);
    done
}

/// A text whose lines begin with what they say. No text may have several lines, or it would be another.
fn without_indents(text: &str) -> String {
    text.split_inclusive('\n').map(|line| line.trim_start_matches([' ', '\t'])).collect()
}

/// A script or a style sheet without the lines that are nothing but a comment.
fn without_comments(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut within = false;
    for line in text.split_inclusive('\n') {
        let begin = line.trim_start();
        let comment = if within { Some(line) } else { begin.strip_prefix("/*") };
        match comment.map(|comment| comment.split_once("*/")) {
            Some(Some((_, rest))) => {
                within = false;
                if !rest.trim().is_empty() {
                    kept.push_str(rest);
                }
            }
            Some(None) => within = true,
            None if begin.starts_with("//") => {}
            None => kept.push_str(line),
        }
    }
    without_indents(&without_types(&kept))
}

/// A script without the types of its parameters and variables, `/** @type … */` within a line.
fn without_types(text: &str) -> String {
    let mut parts = text.split("/** @");
    let mut kept = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.split_once("*/").map_or("", |(_, rest)| rest);
        kept.push_str(rest.strip_prefix(' ').unwrap_or(rest));
    }
    kept
}

/// Where scripts or styles of a document may come from: files of this service, where it has such, and what is in it.
fn sources(digests: &[String], has_files: bool) -> String {
    let files = has_files.then(|| "'self'".to_owned());
    let digests = digests.iter().map(|digest| format!("'sha256-{digest}'"));
    files.into_iter().chain(digests).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
