//! The pages for fans: documents, and the scripts, styles and pictures that these are made of.
//!
//! They are files of `crates/server/pages`, written as browsers take them, and are in the program. What is done to
//! them is done once, at the start:
//!
//! - `/assets/NAME.EXT` becomes `/assets/NAME-HASH.EXT`, so that browsers keep such a file for good. The
//!   hash is over what is served, so what a file refers to comes before it.
//! - Lines of scripts and style sheets that are nothing but a comment are left out: they were an eighth of the
//!   waiting page. So no text of several lines may have one that begins like a comment.
//! - `data-inline` puts a style sheet or a script into its document. Each round trip costs who has a slow
//!   connection as much as many kilobytes. The policy of the document names what was put there by its digest.
//! - `{{auth}}` becomes what the pages are told of people: `none`, `jwt`, or `sign-in` where they can do that here.
//! - `fan/page.html` becomes the document of each script of `fan/`, whose name stands for `{{page}}`: they differ by
//!   nothing else.
//!
//! What does not belong here: requests and headers; see `http::pages`.

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
    "icon.svg",
    "lib/kit.js",
    "wait/index.html",
    "wait/wait.css",
    "wait/wait.js",
];

/// What each document of `fan/` is made of.
const FAN_PAGE: &str = "fan/page.html";
/// What begins the address of everything but a document.
pub(crate) const ASSETS: &str = "/assets/";
/// Characters of a hash in an address: 64 bits.
const HASH_CHARS: usize = 16;
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
        /// What the pages are told of people.
        auth: &'static str,
    },
}

impl Pages {
    /// The pages of a configuration; none where they are not served.
    ///
    /// # Errors
    /// What is wrong with those in the program.
    pub(crate) fn new(config: &Config) -> Result<Option<Self>, String> {
        let auth = config.auth.for_pages();
        Ok(match &config.pages.directory {
            _ if !config.pages.enabled => None,
            None => Some(Self::Built(Site::built_in(auth)?)),
            Some(from) => Some(Self::Directory { from: from.clone(), auth }),
        })
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
    fn new(media_type: &'static str, text: String, policy: Option<HeaderValue>) -> Self {
        let hash = hash_of(&text);
        Self { media_type, policy, body: Bytes::from(text), hash, gzip: OnceLock::new() }
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
    pub(crate) fn built_in(auth: &'static str) -> Result<Self, String> {
        Self::new(FILES.iter().map(|(name, text)| ((*name).into(), (*text).into())), auth)
    }

    /// The pages of a directory as they are now.
    ///
    /// # Errors
    /// What cannot be read, or what is wrong with a file, by name.
    pub(crate) fn read(directory: &Path, auth: &'static str) -> Result<Self, String> {
        let mut files = Vec::new();
        read(directory, "", &mut files)?;
        Self::new(files, auth)
    }

    fn new(
        files: impl IntoIterator<Item = (String, String)>,
        auth: &'static str,
    ) -> Result<Self, String> {
        let files: BTreeMap<String, String> = files.into_iter().collect();
        let mut builder = Builder { files: &files, assets: HashMap::new(), under_way: Vec::new() };
        let mut documents = HashMap::new();
        for (name, text) in &files {
            if name == FAN_PAGE {
                let scripts = files.keys().filter_map(|it| it.strip_prefix("fan/"));
                for page in scripts.filter_map(|it| it.strip_suffix(".js")) {
                    let (name, text) = (format!("fan/{page}.html"), text.replace("{{page}}", page));
                    let document = builder.document(&name, &text, auth)?;
                    documents.insert(name, document);
                }
            } else if name.ends_with(".html") {
                documents.insert(name.clone(), builder.document(name, text, auth)?);
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

/// Name and hash of the address of an asset.
fn parted(address: &str) -> Option<(String, &str)> {
    let (stem, extension) = address.rsplit_once('.')?;
    let (stem, hash) = stem.rsplit_once('-')?;
    let is_hash = hash.len() == HASH_CHARS
        && hash.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    is_hash.then(|| (format!("{stem}.{extension}"), hash))
}

fn hash_of(text: &str) -> String {
    let mut hash = store::Digest(Sha256::digest(text).into()).to_string();
    hash.truncate(HASH_CHARS);
    hash
}

fn media_type(name: &str) -> Option<&'static str> {
    Some(match name.rsplit_once('.')?.1 {
        "html" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
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
    assets: HashMap<String, Asset>,
    /// The assets that are being made, each for the one before it.
    under_way: Vec<String>,
}

impl Builder<'_> {
    /// Makes an asset, unless it is made.
    fn asset(&mut self, name: &str) -> Result<&Asset, String> {
        if !self.assets.contains_key(name) {
            let media_type = match media_type(name) {
                Some(media_type) if !name.ends_with(".html") => media_type,
                _ => return Err(format!("{name}: such a file is no asset")),
            };
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
            let served = Served::new(media_type, text, None);
            let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
            let path = format!("{ASSETS}{stem}-{}.{extension}", served.hash);
            self.assets.insert(name.to_owned(), Asset { served, path });
        }
        self.assets.get(name).ok_or_else(|| format!("{name}: not made"))
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

    fn document(&mut self, name: &str, text: &str, auth: &'static str) -> Result<Served, String> {
        let text = self.with_hashes(name, text)?.replace("{{auth}}", auth);
        let to_inline = text.matches("data-inline").count();
        let (text, styles) = self.with_inlined(&text, STYLE, "style")?;
        let (text, scripts) = self.with_inlined(&text, SCRIPT, "script type=\"module\"")?;
        if styles.len() + scripts.len() != to_inline {
            return Err(format!("{name}: data-inline in a form that is not known"));
        }
        let policy = format!(
            "default-src 'none'; script-src {}; style-src {}; img-src 'self'; connect-src 'self'; \
             manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; \
             require-trusted-types-for 'script'; trusted-types 'none'",
            sources(&scripts),
            sources(&styles),
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
    kept
}

/// Where scripts or styles of a document may come from.
fn sources(digests: &[String]) -> String {
    if digests.is_empty() {
        return "'self'".to_owned();
    }
    let digests: Vec<String> = digests.iter().map(|digest| format!("'sha256-{digest}'")).collect();
    digests.join(" ")
}

#[cfg(test)]
mod tests;
