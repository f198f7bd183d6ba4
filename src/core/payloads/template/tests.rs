//! Templates from text to body, without a server.

use serde::Deserialize;
use serde_json::{json, Map, Value};
use uuid::Uuid;

use super::parameter::fixed_parameters;
use super::render::{MessageParts, TemplateConstants, TemplatePayload};
use super::*;
use crate::core::payloads::default_payload::PayloadConstants;

mod any_template;
mod refused;

const CONFORMANCE: &str = include_str!("../../../../tests/conformance/payloads.json");

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
