//! Whose pages they are: a name, a logo, a colour, and a word to those who wait.
//!
//! What does not belong here: where it stands on a page; see `pages`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::config::PagesConfig;

/// Characters of a name.
const NAME_CHARS_MAX: usize = 60;
/// Characters of a notice, in each language.
const NOTICE_CHARS_MAX: usize = 500;
/// Bytes of a logo.
const LOGO_BYTES_MAX: usize = 64 * 1024;
/// What texts have at least against what is behind them (WCAG 2.2, success criterion 1.4.3).
const CONTRAST_MIN: f64 = 4.5;

/// Whose pages they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Organiser {
    /// What they are called, in place of the program's name.
    pub(super) name: Option<String>,
    /// Their logo.
    pub(super) logo: Option<Logo>,
    /// Their colour, as pages use it.
    pub(super) palette: Option<Palette>,
    /// What they say to those who wait, in Korean.
    pub(super) notice_ko: Option<String>,
    /// The same in English.
    pub(super) notice_en: Option<String>,
}

/// A picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Logo {
    /// `svg` or `png`.
    pub(super) extension: &'static str,
    /// The file.
    pub(super) bytes: Vec<u8>,
}

/// What is wrong with a setting, and with which.
pub(crate) type Wrong = (&'static str, String);

impl Organiser {
    /// What a configuration says, with what its files have.
    ///
    /// # Errors
    /// What is wrong with a setting.
    pub(crate) fn new(config: &PagesConfig) -> Result<Self, Wrong> {
        let text = |key, text: &Option<String>, max| match text {
            Some(text) if !is_text(text, max) => {
                Err((key, format!("must be 1 to {max} characters, in one line")))
            }
            text => Ok(text.clone()),
        };
        let logo = match &config.logo {
            Some(path) => Some(Logo::read(path).map_err(|why| ("pages.logo", why))?),
            None => None,
        };
        let palette = match &config.colour {
            Some(colour) => Some(Palette::new(colour).ok_or_else(|| {
                ("pages.colour", "must be a colour such as #4038d4: # and six digits".to_owned())
            })?),
            None => None,
        };
        Ok(Self {
            name: text("pages.organiser", &config.organiser, NAME_CHARS_MAX)?,
            logo,
            palette,
            notice_ko: text("pages.notice_ko", &config.notice_ko, NOTICE_CHARS_MAX)?,
            notice_en: text("pages.notice_en", &config.notice_en, NOTICE_CHARS_MAX)?,
        })
    }

    /// What they say to those who wait, as a document; none where they say nothing.
    pub(super) fn notice(&self) -> Option<String> {
        let (ko, en) = (self.notice_ko.as_ref(), self.notice_en.as_ref());
        // Where it is said in one language only, that is better than nothing.
        let (ko, en) = (ko.or(en)?, en.or(ko)?);
        Some(serde_json::json!({"ko": ko, "en": en}).to_string())
    }
}

fn is_text(text: &str, max: usize) -> bool {
    !text.trim().is_empty() && text.chars().count() <= max && !text.chars().any(char::is_control)
}

impl Logo {
    fn read(path: &Path) -> Result<Self, String> {
        let mut bytes = Vec::new();
        let read = File::open(path)
            .and_then(|file| file.take(LOGO_BYTES_MAX as u64 + 1).read_to_end(&mut bytes));
        read.map_err(|error| format!("cannot be read: {error}"))?;
        if bytes.len() > LOGO_BYTES_MAX {
            return Err(format!("has more than {LOGO_BYTES_MAX} bytes"));
        }
        let is_svg = || std::str::from_utf8(&bytes).is_ok_and(|text| text.contains("<svg"));
        let extension = match () {
            () if bytes.starts_with(b"\x89PNG\r\n\x1a\n") => "png",
            () if is_svg() => "svg",
            () => return Err("is neither an SVG nor a PNG".to_owned()),
        };
        Ok(Self { extension, bytes })
    }
}

/// A colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Colour([u8; 3]);

impl Colour {
    fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('#')?;
        if digits.len() != 6 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let [_, r, g, b] = u32::from_str_radix(digits, 16).ok()?.to_be_bytes();
        Some(Self([r, g, b]))
    }

    fn css(self) -> String {
        let Self([r, g, b]) = self;
        format!("#{r:02x}{g:02x}{b:02x}")
    }

    /// So many hundredths of another one in it.
    fn with(self, other: Self, hundredths: u32) -> Self {
        let mixed = |index: usize| {
            let (own, its) = (u32::from(self.0[index]), u32::from(other.0[index]));
            let sum = own * (100 - hundredths) + its * hundredths;
            u8::try_from((sum + 50) / 100).unwrap_or(u8::MAX)
        };
        Self([mixed(0), mixed(1), mixed(2)])
    }

    /// Its relative luminance, as WCAG has it.
    fn luminance(self) -> f64 {
        let part = |byte: u8| {
            let value = f64::from(byte) / 255.0;
            if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        let Self([r, g, b]) = self;
        0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b)
    }

    fn contrast(self, other: Self) -> f64 {
        let (one, two) = (self.luminance() + 0.05, other.luminance() + 0.05);
        one.max(two) / one.min(two)
    }
}

const WHITE: Colour = Colour([0xff; 3]);
const BLACK: Colour = Colour([0; 3]);

/// A scheme of the style sheets: what is written there of the colour, what can be behind and upon it, and how it
/// is made to be seen.
struct Scheme {
    written: &'static str,
    /// What it is text on, beside its own tint.
    grounds: &'static [Colour],
    /// Text on it.
    upon: Colour,
    /// What is mixed into it until it can be read.
    towards: Colour,
    /// What its tint is made of, and how many hundredths of the colour are in that.
    tint: (Colour, u32),
}

const SCHEMES: [Scheme; 2] = [
    Scheme {
        written: "--accent: #4038d4; --on-accent: #fff; --tint: #ecebfd;",
        grounds: &[WHITE, Colour([0xf5, 0xf5, 0xf8])],
        upon: WHITE,
        towards: BLACK,
        tint: (WHITE, 10),
    },
    Scheme {
        written: "--accent: #a9a4ff; --on-accent: #15141f; --tint: #26254a;",
        grounds: &[Colour([0x11, 0x12, 0x19]), Colour([0x1b, 0x1d, 0x27])],
        upon: Colour([0x15, 0x14, 0x1f]),
        towards: WHITE,
        tint: (Colour([0x11, 0x12, 0x19]), 15),
    },
];
/// The colour in pictures.
const IN_PICTURES: &str = "#4038d4";

/// A colour in the shades that can be read in each scheme: it is made darker where the page is light, and lighter
/// where that is dark, until everything that is written in it or upon it stands out enough. That ends, at black
/// and white at the latest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Palette(Vec<[Colour; 2]>);

impl Palette {
    fn new(text: &str) -> Option<Self> {
        let colour = Colour::parse(text)?;
        let shades = SCHEMES.iter().map(|scheme| {
            let tint = |shade: Colour| scheme.tint.0.with(shade, scheme.tint.1);
            let is_readable = |shade: &Colour| {
                let beside = scheme.grounds.iter().copied().chain([scheme.upon, tint(*shade)]);
                beside.into_iter().all(|other| shade.contrast(other) >= CONTRAST_MIN)
            };
            let mut shades = (0..=100).map(|hundredths| colour.with(scheme.towards, hundredths));
            let shade = shades.find(is_readable).unwrap_or(scheme.towards);
            [shade, tint(shade)]
        });
        Some(Self(shades.collect()))
    }

    /// A style sheet or a picture in this colour.
    pub(super) fn applied_to(&self, text: &str) -> String {
        let shades = SCHEMES.iter().zip(&self.0);
        let text = shades.fold(text.to_owned(), |text, (scheme, [accent, tint])| {
            let [accent, tint, upon] = [*accent, *tint, scheme.upon].map(Colour::css);
            let new = format!("--accent: {accent}; --on-accent: {upon}; --tint: {tint};");
            text.replace(scheme.written, &new)
        });
        let picture = self.0.first().map_or_else(|| IN_PICTURES.to_owned(), |[it, _]| it.css());
        text.replace(IN_PICTURES, &picture)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn config(change: impl FnOnce(&mut PagesConfig)) -> PagesConfig {
        let mut config = PagesConfig::default();
        change(&mut config);
        config
    }

    #[test]
    fn what_nobody_should_see_is_refused_by_the_name_of_its_setting() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = directory.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            Some(path)
        };
        let text = |text: &str| Some(text.to_owned());
        for (key, said, wrong) in [
            ("pages.organiser", "1 to 60", config(|it| it.organiser = text(""))),
            ("pages.organiser", "1 to 60", config(|it| it.organiser = text("  "))),
            (
                "pages.organiser",
                "1 to 60",
                config(|it| it.organiser = text(&"\u{1f3b5}".repeat(61))),
            ),
            ("pages.organiser", "one line", config(|it| it.organiser = text("a\nb"))),
            ("pages.notice_ko", "1 to 500", config(|it| it.notice_ko = text(&"공".repeat(501)))),
            ("pages.notice_en", "one line", config(|it| it.notice_en = text("a\u{0}b"))),
            ("pages.colour", "#4038d4", config(|it| it.colour = text("red"))),
            ("pages.colour", "#4038d4", config(|it| it.colour = text("#40 38d"))),
            ("pages.colour", "#4038d4", config(|it| it.colour = text("#4038d4;}"))),
            ("pages.colour", "#4038d4", config(|it| it.colour = text("4038d4"))),
            ("pages.colour", "#4038d4", config(|it| it.colour = text("#fff"))),
            ("pages.logo", "cannot be read", config(|it| it.logo = Some("/nowhere".into()))),
            ("pages.logo", "cannot be read", config(|it| it.logo = Some(directory.path().into()))),
            ("pages.logo", "more than 65536", config(|it| it.logo = file("big", &[b' '; 65_537]))),
            ("pages.logo", "neither", config(|it| it.logo = file("gif", b"GIF89a"))),
            ("pages.logo", "neither", config(|it| it.logo = file("empty", b""))),
        ] {
            let (named, why) = Organiser::new(&wrong).unwrap_err();
            assert_eq!(named, key, "{why}");
            assert!(why.contains(said), "{why}");
        }
        for (name, bytes, extension) in
            [("a", &b"\x89PNG\r\n\x1a\n..."[..], "png"), ("b", b"<?xml?><svg></svg>", "svg")]
        {
            let good = Organiser::new(&config(|it| it.logo = file(name, bytes))).unwrap();
            assert_eq!(good.logo.map(|logo| logo.extension), Some(extension));
        }
        assert_eq!(Organiser::new(&PagesConfig::default()), Ok(Organiser::default()));
    }

    #[test]
    fn a_notice_in_one_language_is_shown_in_both() {
        let told = |ko: Option<&str>, en: Option<&str>| {
            let of = |text: Option<&str>| text.map(str::to_owned);
            Organiser { notice_ko: of(ko), notice_en: of(en), ..Organiser::default() }.notice()
        };
        assert_eq!(told(None, None), None);
        assert_eq!(told(Some("가"), None).unwrap(), r#"{"en":"가","ko":"가"}"#);
        assert_eq!(told(None, Some("\"")).unwrap(), r#"{"en":"\"","ko":"\""}"#);
        assert_eq!(told(Some("가"), Some("a")).unwrap(), r#"{"en":"a","ko":"가"}"#);
    }

    #[test]
    fn a_colour_that_can_be_read_stays_what_it_is() {
        let applied = |colour: &str| {
            let written = SCHEMES.map(|scheme| scheme.written).join("|");
            Palette::new(colour).unwrap().applied_to(&format!("{written}|{IN_PICTURES}"))
        };
        let own = applied("#4038d4");
        assert!(own.starts_with("--accent: #4038d4; --on-accent: #ffffff; --tint: #"), "{own}");
        assert!(own.ends_with("|#4038d4"), "{own}");
        // Yellow is too light for a light page, and stays as it is on a dark one.
        let yellow = applied("#FFD400");
        assert!(!yellow.starts_with("--accent: #ffd400"), "{yellow}");
        assert!(yellow.contains("|--accent: #ffd400; --on-accent: #15141f;"), "{yellow}");
        // The contrasts that WCAG's own tools tell.
        assert!((WHITE.contrast(BLACK) - 21.0).abs() < 1e-9);
        let grey = Colour([0x76; 3]).contrast(WHITE);
        assert!((4.54..4.55).contains(&grey), "{grey}");
    }

    proptest! {
        #[test]
        fn every_colour_can_be_read_wherever_it_is_used(r: u8, g: u8, b: u8) {
            let palette = Palette::new(&Colour([r, g, b]).css()).unwrap();
            for (scheme, [accent, tint]) in SCHEMES.iter().zip(&palette.0) {
                for other in scheme.grounds.iter().chain([&scheme.upon, tint]) {
                    prop_assert!(accent.contrast(*other) >= CONTRAST_MIN, "{accent:?} {other:?}");
                }
            }
        }
    }
}
