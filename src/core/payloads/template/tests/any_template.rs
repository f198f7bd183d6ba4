//! Any row, any JSON, any text: values stay in their places, and nothing panics.

use proptest::prelude::*;

use super::*;

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
