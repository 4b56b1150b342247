//! Reads selectors as query strings, with upstream's words for what is wrong.

use base::SmolStr;

use super::{FieldSelector, LabelSelector, Operator, Requirement, SelectorError};

/// Requirements of one selector. Requests are bounded already; this bounds what one of them can cost per object.
const REQUIREMENTS_MAX: usize = 1024;

pub(super) fn labels(text: &str) -> Result<LabelSelector, SelectorError> {
    let mut parser = Parser { tokens: tokens(text), at: 0 };
    let mut requirements = Vec::new();
    loop {
        match parser.peek(true) {
            Token::End => return Ok(LabelSelector { requirements }),
            Token::Word(_) | Token::Not => {
                let requirement = parser.requirement().map_err(|error| SelectorError {
                    message: format!("unable to parse requirement: {}", error.message),
                })?;
                requirements.push(requirement);
            }
            other => return Err(found(&other, ", expected: !, identifier, or 'end of string'")),
        }
        if requirements.len() > REQUIREMENTS_MAX {
            return Err(SelectorError { message: format!("more than {REQUIREMENTS_MAX} requirements") });
        }
        match parser.next(true) {
            Token::End => return Ok(LabelSelector { requirements }),
            Token::Comma => match parser.peek(true) {
                Token::Word(_) | Token::Not => {}
                other => return Err(found(&other, ", expected: identifier after ','")),
            },
            other => return Err(found(&other, ", expected: ',' or 'end of string'")),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Symbol(&'static str),
    Not,
    Comma,
    Open,
    Close,
    End,
}

impl Token {
    fn text(&self) -> &str {
        match self {
            Token::Word(text) => text,
            Token::Symbol(text) => text,
            Token::Not => "!",
            Token::Comma => ",",
            Token::Open => "(",
            Token::Close => ")",
            Token::End => "",
        }
    }
}

fn found(token: &Token, rest: &str) -> SelectorError {
    SelectorError { message: format!("found '{}'{rest}", token.text()) }
}

fn tokens(text: &str) -> Vec<Token> {
    const SPECIAL: [char; 7] = ['=', '!', '(', ')', ',', '>', '<'];
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let end = if SPECIAL.contains(&first) {
            let (token, length) = symbol(rest);
            tokens.push(token);
            length
        } else {
            let end = rest.find(|c: char| c.is_whitespace() || SPECIAL.contains(&c)).unwrap_or(rest.len());
            tokens.push(Token::Word(rest[..end].to_owned()));
            end
        };
        rest = rest[end..].trim_start();
    }
    tokens
}

fn symbol(text: &str) -> (Token, usize) {
    for (spelt, token) in [
        ("!=", Token::Symbol("!=")),
        ("==", Token::Symbol("==")),
        ("=", Token::Symbol("=")),
        (">", Token::Symbol(">")),
        ("<", Token::Symbol("<")),
        ("!", Token::Not),
        (",", Token::Comma),
        ("(", Token::Open),
        (")", Token::Close),
    ] {
        if text.starts_with(spelt) {
            return (token, spelt.len());
        }
    }
    unreachable!("the caller saw a special character")
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    /// Where `values` are expected, `in` and `notin` are words like any other.
    fn peek(&self, values: bool) -> Token {
        match self.tokens.get(self.at) {
            None => Token::End,
            Some(Token::Word(word)) if !values && word == "in" => Token::Symbol("in"),
            Some(Token::Word(word)) if !values && word == "notin" => Token::Symbol("notin"),
            Some(token) => token.clone(),
        }
    }

    fn next(&mut self, values: bool) -> Token {
        let token = self.peek(values);
        self.at += 1;
        token
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let mut token = self.next(true);
        let negated = token == Token::Not;
        if negated {
            token = self.next(true);
        }
        let Token::Word(key) = token else { return Err(found(&token, ", expected: identifier")) };
        let key = SmolStr::from(key);
        if negated {
            return Requirement { key, operator: Operator::DoesNotExist, values: Vec::new() }.checked();
        }
        if matches!(self.peek(true), Token::End | Token::Comma) {
            return Requirement { key, operator: Operator::Exists, values: Vec::new() }.checked();
        }
        let token = self.next(false);
        let operator = match token.text() {
            "in" | "=" | "==" => Operator::In,
            "notin" | "!=" => Operator::NotIn,
            ">" => Operator::GreaterThan,
            "<" => Operator::LessThan,
            _ => return Err(found(&token, ", expected: in, notin, =, ==, !=, gt, lt")),
        };
        let values = if matches!(token.text(), "in" | "notin") { self.values()? } else { vec![self.value()?] };
        Requirement { key, operator, values }.checked()
    }

    fn value(&mut self) -> Result<SmolStr, SelectorError> {
        if matches!(self.peek(true), Token::End | Token::Comma) {
            return Ok(SmolStr::default());
        }
        match self.next(true) {
            Token::Word(word) => Ok(word.into()),
            other => Err(found(&other, ", expected: identifier")),
        }
    }

    /// `(a,b)`; a place between commas that holds nothing is the empty value.
    fn values(&mut self) -> Result<Vec<SmolStr>, SelectorError> {
        let open = self.next(true);
        if open != Token::Open {
            return Err(found(&open, " expected: '('"));
        }
        if self.peek(true) == Token::Close {
            self.at += 1;
            return Ok(Vec::new());
        }
        let mut values: Vec<SmolStr> = Vec::new();
        let mut add = |value: SmolStr| {
            if !values.contains(&value) {
                values.push(value);
            }
        };
        let mut after_comma = true;
        loop {
            match self.next(true) {
                Token::Word(word) if after_comma => {
                    add(word.into());
                    after_comma = false;
                }
                Token::Comma => {
                    if after_comma {
                        add(SmolStr::default());
                    }
                    after_comma = true;
                }
                Token::Close => {
                    if after_comma {
                        add(SmolStr::default());
                    }
                    return Ok(values);
                }
                other => return Err(found(&other, ", expected: ',', ')' or identifier")),
            }
        }
    }
}

pub(super) fn fields(text: &str) -> Result<FieldSelector, SelectorError> {
    let mut terms = Vec::new();
    for term in split(text).into_iter().filter(|term| !term.is_empty()) {
        let (path, equal, value) = term_of(term).ok_or_else(|| SelectorError {
            message: format!("invalid selector: '{text}'; can't understand '{term}'"),
        })?;
        terms.push((path.into(), equal, unescape(value)?));
    }
    Ok(FieldSelector { terms })
}

/// Splits at commas that are not escaped.
fn split(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn term_of(term: &str) -> Option<(&str, bool, &str)> {
    term.char_indices().find_map(|(at, _)| {
        let (path, rest) = term.split_at(at);
        for (operator, equal) in [("!=", false), ("==", true), ("=", true)] {
            if let Some(value) = rest.strip_prefix(operator) {
                return Some((path, equal, value));
            }
        }
        None
    })
}

fn unescape(text: &str) -> Result<SmolStr, SelectorError> {
    if !text.contains(['\\', ',', '=']) {
        return Ok(text.into());
    }
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(next @ ('\\' | ',' | '=')) => out.push(next),
                Some(next) => {
                    let message = format!("invalid field selector: invalid escape sequence: \\{next}");
                    return Err(SelectorError { message });
                }
                None => {
                    return Err(SelectorError {
                        message: "invalid field selector: invalid escape sequence: \\".into(),
                    });
                }
            },
            ',' | '=' => {
                let message = format!("invalid field selector: unescaped character in value: {c}");
                return Err(SelectorError { message });
            }
            c => out.push(c),
        }
    }
    Ok(out.into())
}

pub(super) fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if matches!(c, '\\' | ',' | '=') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}
