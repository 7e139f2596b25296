//! Expressions, what they match and what they do not.

use super::*;

/// An expression, texts it matches and texts it does not.
type Row = (&'static str, &'static [&'static str], &'static [&'static str]);

const ROWS: &[Row] = &[
    ("", &[""], &["a"]),
    ("abc", &["abc"], &["ab", "abcd", "xabc", "ABC"]),
    ("a.c", &["abc", "aéc", "a\nc"], &["ac", "abbc"]),
    ("ab?c", &["ac", "abc"], &["abbc"]),
    ("ab*c", &["ac", "abbbc"], &["adc"]),
    ("ab+c", &["abc", "abbc"], &["ac"]),
    ("a{3}", &["aaa"], &["aa", "aaaa"]),
    ("a{2,}", &["aa", "aaaaa"], &["a"]),
    ("a{2,3}", &["aa", "aaa"], &["a", "aaaa"]),
    ("(ab|cd)+", &["ab", "cdab"], &["", "ac"]),
    ("ab|cd", &["ab", "cd"], &["abd", "acd"]),
    ("[a-cx]+", &["abcx"], &["d", ""]),
    ("[^a-c]", &["d", "é", "\n"], &["a", ""]),
    ("[]a]+", &["]a"], &["b"]),
    ("[a\\-c]+", &["a-c"], &["b"]),
    ("[\\d_]+", &["1_2"], &["a"]),
    ("\\w+\\s\\D", &["ab_1 x", "a\tx"], &["ab 1", "é x"]),
    ("a\\.b\\/c\\\"", &["a.b/c\""], &["axb/c\""]),
    ("\"a.b\"*", &["", "a.ba.b"], &["axb"]),
    ("()", &[""], &["a"]),
    ("a()b", &["ab"], &["a"]),
    ("@", &["", "anything\n"], &[]),
    ("@b@", &["b", "abc"], &["ac"]),
    ("#", &[], &["", "a", "#"]),
    ("a|#", &["a"], &["", "#"]),
    ("<1-100>", &["1", "42", "100", "007"], &["0", "101", "1000", "", "4a"]),
    ("<01-10>", &["01", "09", "10"], &["1", "00", "11", "010"]),
    ("<100-1>", &["1", "100"], &["0", "101"]),
    ("a<5-12>b", &["a5b", "a12b", "a0010b"], &["a4b", "a13b"]),
    ("~abc", &["bc", "xbc"], &["abc", "bbc\0x"]),
    ("~(abc)", &["", "ab", "abcd"], &["abc"]),
    ("a~bc", &["ac", "aac", "abbc"], &["abc", "ab"]),
    ("~(@foo@)", &["bar", ""], &["foo", "xfoox"]),
    ("a+&@b@|c", &["c"], &["a", "ab"]),
    ("@a@&@b@", &["ab", "ba", "xbya"], &["a", "b", ""]),
    ("([a-z]+&~(root|admin))@x", &["user@x", "rootx@x", "user1x"], &["root", "x"]),
    ("(~a){2}b", &["b", "xyb", "aaab"], &["ax"]),
    ("x(@&~(@y@))z", &["xz", "xaz"], &["xyz", "xayz"]),
    ("\\&\\~\\@\\#\\<", &["&~@#<"], &[]),
    ("é+", &["éé"], &["e", "É"]),
    ("日本.", &["日本語"], &["日本"]),
];

#[test]
fn expressions_match_whole_texts() {
    for (pattern, matching, others) in ROWS {
        let regex = Regex::new(pattern, false).unwrap_or_else(|error| panic!("{pattern}: {error}"));
        let found = |texts: &[&'static str]| {
            texts.iter().map(|text| (*text, regex.is_match(text))).collect::<Vec<_>>()
        };
        let wrong: Vec<_> = [
            found(matching).into_iter().filter(|(_, found)| !found).collect::<Vec<_>>(),
            found(others).into_iter().filter(|(_, found)| *found).collect(),
        ]
        .concat();
        assert!(wrong.is_empty(), "{pattern}: {wrong:?}");
    }
}

#[test]
fn both_ways_of_running_agree() {
    for (pattern, matching, others) in ROWS {
        let automaton = automaton::Automaton::new(&parser::parse(pattern, false).unwrap()).unwrap();
        for (texts, wanted) in [(matching, true), (others, false)] {
            for text in *texts {
                assert_eq!(automaton.is_match(text), wanted, "{pattern} and {text:?}");
            }
        }
    }
}

#[test]
fn case_is_ignored_where_requested() {
    for (pattern, text) in [("abc", "aBC"), ("[a-f]+", "AFae"), ("\"é\"", "É"), ("~(ABC)&a@", "Abd")] {
        assert!(Regex::new(pattern, true).unwrap().is_match(text), "{pattern} and {text}");
    }
    assert!(!Regex::new("[^a]", true).unwrap().is_match("A"));
    assert!(!Regex::new("abc", false).unwrap().is_match("ABC"));
}

#[test]
fn an_invalid_expression_is_reported_with_its_place() {
    for (pattern, expected) in [
        ("a(b", "`(` is never closed at character 2 of the expression"),
        ("a)b", "`)` closes nothing; write `\\)` for the character at character 2 of the expression"),
        (
            "*a",
            "nothing stands before `*` to repeat; write `\\*` for the character at character 1 of the expression",
        ),
        ("a|", "expected something to match at character 3 of the expression"),
        ("[a", "the class `[…` never ends at character 3 of the expression"),
        ("[z-a]", "the range `z-a` runs backwards at character 5 of the expression"),
        ("a{2,1}", "the counts of `{n,m}` are in the wrong order at character 7 of the expression"),
        (
            "a{x}",
            "expected a number after `{`; write `\\{` for the character at character 3 of the expression",
        ),
        ("\"ab", "the quotation mark is never closed at character 1 of the expression"),
        (
            "<a-b>",
            "expected an interval such as `<1-100>`; write `\\<` for the character at character 1 of the expression",
        ),
        (
            "\\q",
            "there is no class `\\q`; classes are \\d, \\s, \\w and their upper case at character 1 of the expression",
        ),
        ("a\\", "expected a character after the backslash, found the end at character 3 of the expression"),
        ("a{1001}", "at most 1000 repetitions can be counted at character 7 of the expression"),
    ] {
        assert_eq!(Regex::new(pattern, false).unwrap_err().to_string(), expected, "{pattern}");
    }
}

#[test]
fn hostile_expressions_are_refused_or_run_in_linear_time() {
    let long = "a".repeat(REGEX_LENGTH_MAX + 1);
    let huge = "(((a{1000}){1000}){1000}){1000}";
    let states = "~(@a.{60})b";
    for pattern in [long.as_str(), huge, states, &format!("~{huge}b")] {
        assert!(matches!(Regex::new(pattern, false), Err(RegexError::TooLarge(_))), "{pattern:.40}");
    }
    for deep in ["(".repeat(900), "~".repeat(900), format!("a{}", "*".repeat(900))] {
        assert!(matches!(Regex::new(&deep, false), Err(RegexError::Syntax { .. })));
    }
    let text = "a".repeat(100_000);
    for pattern in ["(a*)*b", "(a|a)*b", "(a|aa)+b", "@a.{60}b", "~((a*)*)b"] {
        assert!(!Regex::new(pattern, false).unwrap().is_match(&text), "{pattern}");
    }
}
