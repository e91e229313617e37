//! The filter language, case by case. The cases follow containerd's rules; the expectations were compared with its own
//! implementation.
#![allow(clippy::unwrap_used)]

use std::time::SystemTime;

use proptest::prelude::*;

use super::{Filter, MAX_FILTER_BYTES};
use crate::snapshotter::store::{Info, Kind};

fn info(kind: Kind, name: &str, parent: &str, labels: &[(&str, &str)]) -> Info {
    Info {
        kind,
        name: name.to_owned(),
        parent: parent.to_owned(),
        labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        created: SystemTime::UNIX_EPOCH,
        updated: SystemTime::UNIX_EPOCH,
    }
}

fn some() -> Vec<Info> {
    vec![
        info(
            Kind::Committed,
            "base",
            "",
            &[("tier", "low"), ("containerd.io/gc.root", "2026-01-01T00:00:00Z")],
        ),
        info(Kind::Committed, "top", "base", &[("containerd.io/snapshot.ref", "sha256:abc")]),
        info(Kind::Active, "run-1", "top", &[("tier", "high"), (r#"odd \ and ""#, "yes")]),
        info(Kind::View, "look", "top", &[("a.b.c", "x,y"), ("é", "ü")]),
    ]
}

fn names(filters: &[&str]) -> Vec<String> {
    let filters: Vec<String> = filters.iter().map(|&filter| filter.to_owned()).collect();
    let filter = Filter::parse(&filters).unwrap();
    some().into_iter().filter(|info| filter.matches(info)).map(|info| info.name).collect()
}

fn error(filter: &str) -> String {
    Filter::parse(&[filter.to_owned()]).unwrap_err().to_string()
}

#[test]
fn nothing_and_an_empty_filter_match_everything() {
    let all = ["base", "top", "run-1", "look"];
    assert_eq!(names(&[]), all);
    assert_eq!(names(&[""]), all);
    assert_eq!(names(&["name==base", ""]), all);
    assert!(some().iter().all(|info| Filter::ALL.matches(info)));
}

#[test]
fn each_field_is_compared() {
    assert_eq!(names(&["kind==committed"]), ["base", "top"]);
    assert_eq!(names(&["kind==active"]), ["run-1"]);
    assert_eq!(names(&["kind==view"]), ["look"]);
    assert_eq!(names(&["name==run-1"]), ["run-1"]);
    assert_eq!(names(&["name!=run-1"]), ["base", "top", "look"]);
    assert_eq!(names(&["parent==top"]), ["run-1", "look"]);
    assert_eq!(names(&[r#"parent=="""#]), ["base"]);
    assert_eq!(names(&[r#"parent!="""#]), ["top", "run-1", "look"]);
    assert_eq!(names(&["labels.tier==high"]), ["run-1"]);
    assert_eq!(names(&[r#"labels."containerd.io/snapshot.ref"==sha256:abc"#]), ["top"]);
    assert_eq!(names(&[r#""name"=="base""#]), ["base"]);
}

#[test]
fn commas_are_and_and_several_filters_are_or() {
    assert_eq!(names(&["kind==committed,parent==base"]), ["top"]);
    assert_eq!(names(&["kind==committed, labels.tier"]), ["base"]);
    assert_eq!(names(&["name==base", "name==look"]), ["base", "look"]);
    assert_eq!(names(&["name==base,kind==view", "labels.tier"]), ["base", "run-1"]);
}

#[test]
fn presence_asks_whether_there_is_such_a_field() {
    assert_eq!(names(&["labels.tier"]), ["base", "run-1"]);
    // Always there, though empty for one of them.
    assert_eq!(names(&["parent"]).len(), 4);
    assert_eq!(names(&["kind"]).len(), 4);
    assert!(names(&["labels"]).is_empty());
    assert!(names(&["created"]).is_empty());
}

#[test]
fn a_field_that_does_not_exist_equals_nothing_and_reads_as_empty() {
    assert_eq!(names(&["labels.tier!=high"]), ["base", "top", "look"]);
    assert!(names(&[r#"labels.none=="""#]).is_empty());
    assert!(names(&[r#"labels.none!="""#]).is_empty());
    assert_eq!(names(&["labels.none~=^$"]).len(), 4);
    assert_eq!(names(&["labels.tier~=^$"]), ["top", "look"]);
    assert_eq!(names(&["size!=1"]).len(), 4);
}

#[test]
fn a_label_key_is_split_and_quoted_at_will() {
    for filter in [
        "labels.a.b.c",
        r#"labels."a.b.c""#,
        r#"labels.a."b.c""#,
        r#"labels."a"."b"."c""#,
        r#"labels."\x61.b".c"#,
    ] {
        assert_eq!(names(&[filter]), ["look"], "{filter}");
    }
    assert_eq!(names(&[r#"labels."odd \\ and \""==yes"#]), ["run-1"]);
    assert_eq!(names(&[r#"labels."é"=="ü""#]), ["look"]);
    assert_eq!(names(&[r#"labels."\u00e9"==ü"#]), ["look"]);
    // Two bytes that are one character together.
    assert_eq!(names(&[r#"labels."\xc3\xa9""#]), ["look"]);
    assert!(names(&[r#"labels."\xc3""#]).is_empty());
    // What follows the other names is ignored.
    assert_eq!(names(&["name.first==base"]), ["base"]);
}

#[test]
fn values_end_at_a_comma_unless_quoted() {
    assert_eq!(names(&[r#"labels.a.b.c=="x,y""#]), ["look"]);
    assert!(names(&["labels.a.b.c==x,name"]).is_empty());
    assert_eq!(names(&["labels.\"containerd.io/gc.root\"==2026-01-01T00:00:00Z"]), ["base"]);
    assert_eq!(names(&["name== base"]), ["base"]);
    assert!(names(&["name==a=b"]).is_empty());
    assert!(names(&[r#"name=="\xff""#]).is_empty());
    assert_eq!(names(&[r#"name!="\xff""#]).len(), 4);
}

#[test]
fn regular_expressions_match_anywhere_and_have_quotes_of_their_own() {
    assert_eq!(names(&["name~=o"]), ["top", "look"]);
    assert_eq!(names(&["name~=^.o"]), ["top", "look"]);
    assert_eq!(names(&["name~=/^(base|top)$/"]), ["base", "top"]);
    assert_eq!(names(&[r"name~=|^run-\\d{1,2}$|"]), ["run-1"]);
    assert_eq!(names(&[r#"name~="^[bl]""#]), ["base", "look"]);
    assert_eq!(names(&[r"name~=run-\d"]), ["run-1"]);
    assert_eq!(names(&[r"labels.a.b.c~=/x,y/"]), ["look"]);
    assert_eq!(names(&[r#"labels."containerd.io/snapshot.ref"~=/\x5esha256:\//"#]), Vec::<String>::new());
}

#[test]
fn an_expression_that_cannot_be_compiled_matches_nothing() {
    assert!(names(&["name~=("]).is_empty());
    assert_eq!(names(&["name~=(", "name==base"]), ["base"]);
    assert!(names(&[r#"name~="\xff""#]).is_empty());
    // Too large, and too deep: bounded by us.
    assert!(names(&["name~=/((a{1,100}){1,100}){1,100}/"]).is_empty());
    assert!(names(&[&format!("name~={}{}", "(".repeat(5000), ")".repeat(5000))]).is_empty());
}

#[test]
fn mistakes_are_pointed_at() {
    for (filter, message) in [
        ("name==foo,", "[name==foo,]: expected field or quoted"),
        ("labels.", "[labels.]: expected field or quoted"),
        (" ", "[ ]: expected field or quoted"),
        ("labels.?x", "[labels. >|?|< x]: expected field or quoted"),
        ("name~=,x", "[name~= >|,|< x]: expected value or quoted"),
        ("name==", "[name==]: expected value or quoted"),
        ("name=foo", "[name >|=|< foo]: unsupported operator \"=\""),
        ("name===foo", "[name >|=|< ==foo]: unsupported operator \"===\""),
        ("name foo", "[name  >|f|< oo]: expected an operator (\"==\"|\"!=\"|\"~=\")"),
        ("name==foo bar", "[name==foo >| |< bar]: unexpected input:  "),
        ("name==\"foo\"bar", "[name==\"foo\" >|b|< ar]: unexpected input: b"),
        ("labels.|foo|", "[labels. >|||< foo|]: invalid quote encountered"),
        ("name==|foo|", "[name== >|||< foo|]: invalid quote encountered"),
        ("labels.ns/key==v", "[labels.ns >|/|< key==v]: quoted literal not terminated"),
        ("name==\"foo", "[name== >|\"|< foo]: quoted literal not terminated"),
        ("name==\"a\nb\"", "[name== >|\"|< a\nb\"]: quoted literal not terminated"),
        (r#"name=="\q""#, r#"[name== >|"|< \q"]: illegal escape sequence"#),
        (r"name~=/\d/", r"[name~= >|/|< \d/]: illegal escape sequence"),
        (r#"name=="\x4""#, r#"[name== >|"|< \x4"]: illegal numeric escape sequence"#),
        (r#"name=="\777""#, r#"[name== >|"|< \777"]: unquoting failed: quote syntax error"#),
        (r#"name=="\U00110000""#, r#"[name== >|"|< \U00110000"]: unquoting failed: quote syntax error"#),
        ("na\0me", "[na >|\0|< me]: expected an operator (\"==\"|\"!=\"|\"~=\")"),
    ] {
        let error = error(filter);
        if !filter.contains('\0') {
            assert_eq!(error, format!("filters: parse error: {message}: invalid argument"), "{filter}");
        }
    }
    assert!(error("na\0me").contains("unexpected null"));
    assert!(error("name==\u{fffd}").contains("rune error"));
}

#[test]
fn one_bad_filter_among_good_ones_is_an_error() {
    assert!(Filter::parse(&["name==a".to_owned(), "=".to_owned()]).is_err());
    // Also where an empty one matches everything anyway.
    assert!(Filter::parse(&[String::new(), "=".to_owned()]).is_err());
}

#[test]
fn what_a_request_may_ask_is_bounded() {
    let long = format!("name=={}", "a".repeat(MAX_FILTER_BYTES - 6));
    assert!(Filter::parse(std::slice::from_ref(&long)).is_ok());
    assert!(Filter::parse(&[long, "a".to_owned()]).is_err());
    assert!(Filter::parse(&vec!["name~=a".to_owned(); 16]).is_ok());
    assert!(Filter::parse(&vec!["name~=a".to_owned(); 17]).is_err());
    // The message does not repeat all of a long filter.
    assert!(error(&format!("name=={} x", "a".repeat(60_000))).len() < 1000);
}

proptest! {
    #[test]
    fn no_input_panics(filter in r#"(name|labels|[a-z.",/|\\=!~ \x00-\x1fé]|\\[xuU0-7abn]|\PC){0,40}"#) {
        if let Ok(filter) = Filter::parse(&[filter]) {
            for info in some() {
                filter.matches(&info);
            }
        }
    }

    #[test]
    fn any_value_is_found_when_quoted(value in "\\PC{0,20}", key in "\\PC{1,20}") {
        prop_assume!(!value.contains('\u{fffd}') && !key.contains('\u{fffd}'));
        let quote = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
        let filter = format!("labels.{}=={}", quote(&key), quote(&value));
        let filter = Filter::parse(&[filter]).unwrap();
        let mut labelled = info(Kind::Active, "n", "", &[(&key, &value)]);
        prop_assert!(filter.matches(&labelled));
        labelled.labels.insert(key, format!("{value}x"));
        prop_assert!(!filter.matches(&labelled));
    }
}
