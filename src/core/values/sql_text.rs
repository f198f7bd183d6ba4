//! Values in the text of a statement, for the few places that take no parameter.
//!
//! What looks as if it needed no quotes gets them all the same: what a table holds, a superuser
//! or a dump may have put there.

/// A name, always in quotes.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string that means the same whatever `standard_conforming_strings` says.
pub fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') {
        format!(" E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_quotes_inside() {
        assert_eq!(identifier("webhook_abc123"), "\"webhook_abc123\"");
        assert_eq!(identifier("a\" b"), "\"a\"\" b\"");
    }

    #[test]
    fn a_string_ends_where_it_does_with_any_setting() {
        assert_eq!(literal("abc123"), "'abc123'");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("\\'"), " E'\\\\'''");
    }
}
