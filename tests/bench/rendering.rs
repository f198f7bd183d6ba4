//! What the body of one message costs: the default payload and a template.

use std::hint::black_box;
use std::time::Instant;

use super::core::payloads::body::Body;
use super::core::payloads::default_payload::PayloadConstants;
use super::core::payloads::template::render::{MessageParts, TemplateConstants};
use super::report::{Line, Report, Target};
use super::support::{Cluster, Receiver};

/// Enough that one round takes a tenth of a second.
const BODIES: u32 = 100_000;
const ROUNDS: usize = 5;

/// A row of eight columns, as capture writes it.
const RECORD: &[u8] = br#"{"id":123456,"name":"Ann \"A\" Miller","email":"ann@example.com","active":true,"balance":12.50,"born":"1980-02-03T00:00:00","note":"","tags":["a","b"]}"#;
const TEMPLATE: &str = r#"{"event": "[@out-hook:eventId]", "message": "[@out-hook:messageId]", "at": "[@out-hook:eventDate]",
    "customer": {"id": "[@field:id]", "title": "Customer [@field:name] <[@field:email]>", "active": "[@field:active]",
    "balance": "[@field:balance]", "tags": "[@field:tags]"}, "by": "[@out-hook:actor]"}"#;

/// Without a server: only the text counts.
pub fn rendering(_: &Cluster, _: &Receiver, report: &mut Report) {
    for (what, template, target_us) in [
        ("default payload of 8 columns", None, 2.0),
        ("template with 10 parameters", Some(TEMPLATE), 5.0),
    ] {
        let ours = microseconds(&body(template));
        report.add(Line {
            name: "R",
            what: format!("render: {what}"),
            ours,
            compared_with: target_us,
            unit: "us",
            ratio: ours / target_us,
            target: Some(Target::OursAtMost(target_us)),
        });
    }
}

fn body(template: Option<&str>) -> Body {
    let constants = TemplateConstants {
        payload: PayloadConstants {
            event_id: "16l7t4",
            webhook_id: "3728sh",
            account_id: "pw9ga619v9lcrf51",
            token: "05iyqnkist3cdabzlib2a8x6uv4yhg4vd9r8w39m",
            event_type: "table.recordUpdate",
            object_name: "customers",
        },
        object_fields: &[],
        integration_url: "",
    };
    Body::compile(template, &constants).expect("the template is valid")
}

/// The best round counts: noise only adds.
fn microseconds(body: &Body) -> f64 {
    let mut out = Vec::new();
    let round = || {
        let started = Instant::now();
        for number in 0..BODIES {
            out.clear();
            let message = MessageParts {
                message_id: uuid::Uuid::from_u128(number.into()),
                call_id: uuid::Uuid::from_u128(7),
                event_date_micros: 826_104_637_197_463 + i64::from(number),
                record: black_box(RECORD),
                old_record: None,
                changed: None,
                actor: Some("clerk"),
                source: Some("REST API"),
            };
            body.render(&message, usize::MAX, &mut out)
                .expect("the record is valid");
            black_box(&out);
        }
        started.elapsed().as_secs_f64() * 1e6 / f64::from(BODIES)
    };
    std::iter::repeat_with(round)
        .take(ROUNDS)
        .fold(f64::INFINITY, f64::min)
}
