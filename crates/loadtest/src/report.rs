//! The report of a run: one self-contained HTML file and one Markdown file, in English or Korean.
