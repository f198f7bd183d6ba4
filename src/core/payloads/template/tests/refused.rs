//! What is refused as a template, and what the error says.

use super::*;
use crate::core::error::Kind;

fn refusal(template: &str) -> Error {
    Template::parse(template).unwrap_err()
}

#[test]
fn text_that_is_not_json_is_refused_with_its_place() {
    for (template, place) in [
        ("{\"a\": 1,}", "line 1, column 9"),
        ("{\n  \"größe\" 1\n}", "line 2, column 11"),
        ("{\"a\": [@field:id]}", "line 1, column 8"),
        ("[1", "line 1, column 2"),
        ("[1] 2", "line 1, column 5"),
        ("nope", "line 1, column 2"),
        ("\"a\nb\"", "line 1, column 2"),
    ] {
        let error = refusal(template);
        assert_eq!(error.kind, Kind::InvalidParameter);
        let expected = format!("payload_template is not valid JSON at {place}: ");
        assert!(error.message.starts_with(&expected), "{template}: {error}");
        assert!(error.hint.is_some());
    }
}

#[test]
fn what_cannot_be_filled_in_is_refused_with_its_place() {
    let error = refusal("{\"a\": 1,\n \"größe\": \"x [@out-hook:eventid]\"}");
    assert_eq!(
        error.message,
        "payload_template holds an unknown parameter: \"[@out-hook:eventid]\""
    );
    assert_eq!(
        error.detail.as_deref(),
        Some("in the string at line 2, column 11")
    );
    assert_eq!(
        error.hint.as_deref(),
        Some("did you mean \"[@out-hook:eventId]\"?")
    );
    for (template, what) in [
        ("{\"[@field:id]\": 1}", "inside a key"),
        ("{\"a\": \"[@field:id\"}", "not closed"),
        ("\"[@]\"", "unknown parameter"),
        ("\"\\ud83d\"", "surrogate"),
    ] {
        let error = refusal(template);
        assert_eq!(error.kind, Kind::InvalidParameter);
        assert!(error.message.contains(what), "{template}: {error}");
        assert!(error.hint.is_some() && error.detail.is_some());
    }
    let deep = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
    assert_eq!(body(&deep(128), "{}"), deep(128));
    for levels in [129, 100_000] {
        assert!(refusal(&deep(levels)).message.contains("128 levels"));
    }
}

#[test]
fn a_template_is_checked_against_the_columns_of_its_table() {
    let column = |name: &str, number| Column {
        name: name.to_owned(),
        number,
        stored: true,
    };
    let columns = [column("id", 1), column("first_name", 3), column("Name", 4)];
    let check = |text| checked(Some(text), &columns);
    let found = check(r#"["[@old:Name]","[@field:id]","[@field:Name] [@old:id]"]"#);
    let fields = found.unwrap().unwrap().fields;
    assert_eq!(fields.names, ["id", "Name"]);
    assert_eq!(fields.numbers, [1, 4]);

    let error = check("\"[@old:frist_name]\"").unwrap_err();
    assert_eq!(error.kind, Kind::UndefinedObject);
    assert_eq!(error.hint.as_deref(), Some("did you mean \"first_name\"?"));
    assert_eq!(
        check("\"[@field:name]\"").unwrap_err().hint.as_deref(),
        Some("did you mean \"Name\"?")
    );
    assert_eq!(checked(Some(""), &columns), Ok(None));
    assert_eq!(refuse_both(true, false), Ok(()));
    assert_eq!(refuse_both(false, true), Ok(()));
    assert_eq!(
        refuse_both(true, true).unwrap_err().kind,
        Kind::InvalidParameter
    );
}

#[test]
fn placeholders_of_others_and_values_that_are_never_there_are_pointed_out() {
    let doubts = |text, event_type| -> Vec<String> {
        Template::parse(text).unwrap();
        let doubts = doubts(text, event_type).into_iter();
        doubts.map(|doubt| doubt.what).collect()
    };
    let insert = doubts(r#"{"a":"{{ x }}","b":"[@old:c]"}"#, EventType::Insert);
    assert!(insert[0].contains("{{ x }}"), "{insert:?}");
    assert!(insert[1].contains("[@old:c]"), "{insert:?}");
    assert_eq!(insert.len(), 2);
    for text in [
        r#"{"a":{"b":{"c":"[@old:c]"}}}"#,
        r#"{"a":"{{","b":{"c":{}}}"#,
        r#"[{},{"a":{}}]"#,
    ] {
        assert_eq!(doubts(text, EventType::Update), [""; 0], "{text}");
    }
}
