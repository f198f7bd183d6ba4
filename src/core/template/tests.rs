//! Templates from text to body, without a server.

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{json, Map, Value};
use uuid::Uuid;

use super::parameter::fixed_parameters;
use super::render::{MessageParts, TemplateConstants, TemplatePayload};
use super::*;
use crate::core::error::Kind;
use crate::core::payload::PayloadConstants;

const CONFORMANCE: &str = include_str!("../../../tests/conformance/payloads.json");

#[derive(Deserialize)]
struct Conformance {
    templates: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    template: String,
    row: Map<String, Value>,
    types: Map<String, Value>,
    json: Option<String>,
    json_any_order: Option<String>,
}

const CONSTANTS: TemplateConstants<'static> = TemplateConstants {
    payload: PayloadConstants {
        event_id: "16l7t4",
        webhook_id: "3728sh",
        account_id: "7239",
        token: "k3y",
        event_type: "table.recordUpdate",
        object_name: "customers",
    },
    object_fields: &[],
    integration_url: "https://example.com/\"in\"",
};

fn message(record: &[u8]) -> MessageParts<'_> {
    MessageParts {
        message_id: Uuid::from_u128(0x0001_c5e5_97b5_4f14_8c46_b230_e5eb_827e),
        call_id: Uuid::from_u128(7),
        event_date_micros: 826_104_637_197_463,
        record,
        old_record: None,
        changed: None,
        actor: None,
        source: None,
    }
}

fn body_of(template: &str, message: &MessageParts<'_>) -> String {
    let template = Template::parse(template).unwrap();
    let payload = TemplatePayload::compile(&template, &CONSTANTS);
    let mut out = Vec::new();
    payload.render(message, usize::MAX, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn body(template: &str, record: &str) -> String {
    body_of(template, &message(record.as_bytes()))
}

fn refusal(template: &str) -> Error {
    Template::parse(template).unwrap_err()
}

#[test]
fn the_cases_of_the_contract_come_out() {
    let cases: Conformance = serde_json::from_str(CONFORMANCE).unwrap();
    assert_eq!(cases.templates.len(), 2, "the file was read");
    for case in cases.templates {
        // The rows hold SQL literals; here only integers and quoted texts.
        let record: Map<String, Value> = case
            .row
            .iter()
            .map(|(name, sql)| {
                let sql = sql.as_str().unwrap();
                let value = match case.types[name].as_str().unwrap() {
                    "integer" => serde_json::from_str(sql).unwrap(),
                    _ => json!(sql.trim_matches('\'')),
                };
                (name.clone(), value)
            })
            .collect();
        let found = body(&case.template, &Value::Object(record).to_string());
        if let Some(expected) = case.json {
            assert_eq!(found, expected);
        }
        if let Some(expected) = case.json_any_order {
            let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap();
            assert_eq!(parsed(&found), parsed(&expected));
        }
    }
}

#[test]
fn a_whole_string_keeps_the_type_and_a_part_of_one_is_text() {
    let record =
        r#"{"n":12.50,"t":"a\"b\\","no":null,"empty":"","yes":true,"j":{"k": ["\ud800"]}}"#;
    for (name, typed, text) in [
        ("n", "12.50", "<12.50>"),
        ("t", r#""a\"b\\""#, r#"<a\"b\\>"#),
        ("no", "null", "<>"),
        ("empty", r#""""#, "<>"),
        ("yes", "true", "<true>"),
        ("j", r#"{"k": ["\ud800"]}"#, r#"<{\"k\": [\"\\ud800\"]}>"#),
        ("gone", "null", "<>"),
    ] {
        assert_eq!(body(&format!("\"[@field:{name}]\""), record), typed);
        let inside = body(&format!("\"<[@field:{name}]>\""), record);
        assert_eq!(inside, format!("\"{text}\""));
    }
    assert_eq!(
        body(r#""[@field:n][@field:n] [@field:yes]""#, record),
        r#""12.5012.50 true""#
    );
}

#[test]
fn what_is_no_parameter_stays_as_it_is_written() {
    let template =
        r#" [ 1.50, -0, 1E400, 1e-05, true , null, "[@ ü\n\u00e9\/", {"b":{}, "a":[]} ] "#
            .replace("[@ ", "[ @");
    assert_eq!(
        body(&template, "{}"),
        "[1.50,-0,1E400,1e-05,true,null,\"[ @ü\\né/\",{\"b\":{},\"a\":[]}]"
    );
    assert_eq!(body("7", "{}"), "7");
    let magic = r#"{"$serde_json::private::Number":"1","$serde_json::private::RawValue":"]"}"#;
    assert_eq!(body(magic, "{}"), magic);
}

#[test]
fn keys_keep_their_place_and_the_last_value_wins() {
    let template =
        r#"{"z":1,"a":"[@field:gone]","z":{"x":1,"x":2},"b":"[@field:id]","\u0061":"[@field:id]"}"#;
    assert_eq!(
        body(template, r#"{"id":5}"#),
        r#"{"z":{"x":2},"a":5,"b":5}"#
    );
    let parsed = Template::parse(template).unwrap();
    assert_eq!(parsed.fields(), ["id"], "an overridden field is not needed");
}

#[test]
fn every_parameter_has_its_value() {
    let template = Template::parse(
        &json!({
            "typed": fixed_parameters().map(|(name, _)| name).collect::<Vec<_>>(),
            "text": fixed_parameters().map(|(name, _)| name).collect::<Vec<_>>().join("|"),
            "old": ["[@old:a]", "[@old:b]", "[@field:a]"],
        })
        .to_string(),
    )
    .unwrap();
    assert!(template.lists_changes());
    let names = ["a".to_owned(), "b \"c\"".to_owned()];
    let constants = TemplateConstants {
        object_fields: &names,
        ..CONSTANTS
    };
    let mut out = Vec::new();
    TemplatePayload::compile(&template, &constants)
        .render(
            &MessageParts {
                old_record: Some(br#"{"a":1.0}"#),
                changed: Some(r#"["a","\"q\""]"#),
                actor: Some("ann \"a\""),
                source: Some("REST\tAPI"),
                ..message(br#"{"a":2}"#)
            },
            usize::MAX,
            &mut out,
        )
        .unwrap();
    let found: Value = serde_json::from_slice(&out).unwrap();
    let id = "0001c5e5-97b5-4f14-8c46-b230e5eb827e";
    let call = "00000000-0000-0000-0000-000000000007";
    let date = "2026-03-06T09:30:37.197463Z";
    assert_eq!(
        found["typed"],
        json!([
            "16l7t4",
            id,
            call,
            "3728sh",
            "7239",
            "k3y",
            date,
            "table.recordUpdate",
            "customers",
            ["a", "b \"c\""],
            ["a", "\"q\""],
            "ann \"a\"",
            "REST\tAPI",
            "https://example.com/\"in\""
        ])
    );
    assert_eq!(
        found["text"],
        format!(
            "16l7t4|{id}|{call}|3728sh|7239|k3y|{date}|table.recordUpdate|customers|\
             a,b \"c\"|a,\"q\"|ann \"a\"|REST\tAPI|https://example.com/\"in\""
        )
    );
    assert_eq!(found["old"].to_string(), "[1.0,null,2]");
}

#[test]
fn what_a_message_lacks_is_empty() {
    let template = r#"["[@out-hook:objectFields]","[@out-hook:changedFields]","[@out-hook:actor]","[@out-hook:source]","[@old:a]","<[@out-hook:changedFields][@out-hook:source][@old:a]>"]"#;
    assert_eq!(body(template, "{}"), r#"[[],[],"","",null,"<>"]"#);
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
fn a_damaged_record_is_no_body() {
    let template = Template::parse(r#"["[@field:a]","[@old:a]"]"#).unwrap();
    let payload = TemplatePayload::compile(&template, &CONSTANTS);
    let mut parts = message(b"{\"a\":");
    assert!(payload.render(&parts, usize::MAX, &mut Vec::new()).is_err());
    parts.record = b"{\"a\":1}";
    parts.old_record = Some(b"[]");
    assert!(payload.render(&parts, usize::MAX, &mut Vec::new()).is_err());
    parts.old_record = Some(b"{}");
    assert!(payload.render(&parts, usize::MAX, &mut Vec::new()).is_ok());
}

#[test]
fn a_body_over_the_limit_is_measured_without_being_written() {
    let places = 1_000;
    let template = vec!["[@field:a]"; places];
    let template = Template::parse(&json!(template).to_string()).unwrap();
    let payload = TemplatePayload::compile(&template, &CONSTANTS);
    let record = format!("{{\"a\":\"{}\"}}", "x".repeat(10_000));
    let mut whole = Vec::new();
    let parts = message(record.as_bytes());
    let size = payload.render(&parts, usize::MAX, &mut whole).unwrap();
    assert_eq!(size, whole.len());
    assert_eq!(size, 2 + places * 10_003 - 1);
    let mut out = Vec::new();
    assert_eq!(payload.render(&parts, 50_000, &mut out), Ok(size));
    assert!(out.capacity() < 200_000, "{}", out.capacity());
    let mut fitting = Vec::new();
    assert_eq!(payload.render(&parts, size, &mut fitting), Ok(size));
    assert!(fitting == whole);
}

/// Any JSON value, with strings as hostile as they come.
fn any_value() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        any::<String>(),
        "[\"\\\\{}\\[\\],:@\u{0}-\u{1f}]{0,8}",
        Just("\",\"injected\":\"x".to_owned()),
        Just("[@field:b]".to_owned()),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        Just(serde_json::from_str("12.50").unwrap()),
        text.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(text.clone(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// What a value is inside a longer string.
fn as_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

proptest! {
    #[test]
    fn any_row_keeps_each_value_in_its_place(values in prop::array::uniform4(any_value()), spaced: bool) {
        let names = ["a", "b", "größe \"x\"", "back\\slash"];
        let row: Map<String, Value> = names.iter().map(|n| (*n).to_owned()).zip(values.clone()).collect();
        let row = Value::Object(row);
        let record = if spaced { serde_json::to_string_pretty(&row).unwrap() } else { row.to_string() };
        let field = |name: &str| format!("[@field:{name}]");
        let template = json!({
            "first": field(names[3]),
            "text": format!("<{}|{}>", field(names[0]), field(names[2])),
            "list": [field(names[2]), 1.50, {"in": field(names[1])}, field("gone")],
            "last": field(names[0]),
        });
        // An unspaced record shows its nested values as they are written there.
        prop_assume!(!spaced || values.iter().all(|value| !value.is_array() && !value.is_object()));
        let body = body(&template.to_string(), &record);
        let expected = json!({
            "first": values[3],
            "text": format!("<{}|{}>", as_text(&values[0]), as_text(&values[2])),
            "list": [values[2], 1.50, {"in": values[1]}, null],
            "last": values[0],
        });
        prop_assert_eq!(body, expected.to_string());
    }

    #[test]
    fn any_json_without_parameters_is_its_own_body(value in any_value()) {
        let text = value.to_string();
        prop_assume!(!text.contains("[@"));
        prop_assert_eq!(body(&text, "{}"), text);
    }

    #[test]
    fn reading_never_panics(text in prop_oneof![any::<String>(), "[\\[\\]{}\",:@1 a\\\\]{0,20}"]) {
        if let Ok(template) = Template::parse(&text) {
            let payload = TemplatePayload::compile(&template, &CONSTANTS);
            let mut out = Vec::new();
            payload.render(&message(b"{}"), usize::MAX, &mut out).unwrap();
            prop_assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&out).is_ok());
        }
    }

    #[test]
    fn rendering_a_damaged_record_never_panics(record in "[\\[\\]{}\",:1a\\\\ ]{0,24}") {
        let template = Template::parse(r#"["[@field:a]","x[@field:1]"]"#).unwrap();
        let payload = TemplatePayload::compile(&template, &CONSTANTS);
        let _ = payload.render(&message(record.as_bytes()), usize::MAX, &mut Vec::new());
    }
}
