//! Writes HTML. All text that comes from users and receivers passes [`escaped`].

/// As text of an element or of a quoted attribute. Control characters, which a page may not
/// hold, and those that reverse the direction of what follows become U+FFFD.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                out.push(char::REPLACEMENT_CHARACTER)
            }
            c if c.is_control() => out.push(char::REPLACEMENT_CHARACTER),
            c => out.push(c),
        }
    }
    out
}

/// A page under construction.
#[derive(Default)]
pub struct Html(String);

impl Html {
    /// Of `chart`, whose texts are escaped.
    pub(super) fn drawn(svg: String) -> Self {
        Self(svg)
    }

    /// Markup of this crate.
    pub fn markup(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    pub fn text(&mut self, text: &str) -> &mut Self {
        self.0.push_str(&escaped(text));
        self
    }

    pub fn number(&mut self, number: impl ToString) -> &mut Self {
        self.text(&number.to_string())
    }

    /// An element without attributes but a class.
    pub fn element(&mut self, tag: &'static str, class: &'static str, text: &str) -> &mut Self {
        self.markup("<").markup(tag);
        if !class.is_empty() {
            self.markup(" class=\"").markup(class).markup("\"");
        }
        self.markup(">").text(text);
        self.markup("</").markup(tag).markup(">")
    }

    pub fn append(&mut self, other: Html) -> &mut Self {
        self.0.push_str(&other.0);
        self
    }

    pub fn finish(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_means_something_in_html_is_escaped() {
        assert_eq!(
            escaped("<b a='1' c=\"2\">&\u{0}\u{202e}\n"),
            "&lt;b a=&#39;1&#39; c=&quot;2&quot;&gt;&amp;\u{fffd}\u{fffd}\n"
        );
    }

    proptest! {
        #[test]
        fn no_text_ends_an_element_or_an_attribute(text in any::<String>()) {
            let escaped = escaped(&text);
            prop_assert!(!escaped.contains(['<', '>', '"', '\'', '\0']));
        }
    }
}
