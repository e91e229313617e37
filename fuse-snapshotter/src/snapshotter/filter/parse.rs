//! Puts the tokens of a filter together.

use super::quote::unquote;
use super::scan::{Illegal, Piece, Scanner, Token};

/// How far a filter is quoted in a message, on each side of the mistake.
const QUOTED_CHARACTERS: usize = 200;

/// How a field is compared with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Matches,
}

/// A selector as it is written.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) fieldpath: Vec<Vec<u8>>,
    pub(super) operator: Option<(Operator, Vec<u8>)>,
}

#[derive(Debug)]
pub(super) struct Parser<'a> {
    input: &'a str,
    scanner: Scanner<'a>,
}

impl<'a> Parser<'a> {
    pub(super) fn new(input: &'a str) -> Self {
        Self { input, scanner: Scanner::new(input) }
    }

    /// All selectors of the filter, or what is wrong with it.
    pub(super) fn selectors(mut self) -> Result<Vec<Parsed>, String> {
        let mut selectors = vec![self.selector()?];
        loop {
            match self.scanner.peek() {
                None => return Ok(selectors),
                Some(',') => {
                    self.scan()?;
                    selectors.push(self.selector()?);
                }
                Some(other) => {
                    return Err(self.error(self.scanner.position(), &format!("unexpected input: {other}")));
                }
            }
        }
    }

    fn selector(&mut self) -> Result<Parsed, String> {
        let mut fieldpath = vec![self.field()?];
        while self.scanner.peek() == Some('.') {
            self.scan()?;
            fieldpath.push(self.field()?);
        }
        if matches!(self.scanner.peek(), None | Some(',')) {
            return Ok(Parsed { fieldpath, operator: None });
        }
        let operator = self.operator()?;
        let value = self.value(operator == Operator::Matches)?;
        Ok(Parsed { fieldpath, operator: Some((operator, value)) })
    }

    fn field(&mut self) -> Result<Vec<u8>, String> {
        let piece = self.scan()?;
        match piece.token {
            Token::Field => Ok(piece.text.as_bytes().to_vec()),
            Token::Quoted => self.unquote(piece, false),
            _ => Err(self.error(piece.at, "expected field or quoted")),
        }
    }

    fn operator(&mut self) -> Result<Operator, String> {
        let piece = self.scan()?;
        match (piece.token, piece.text) {
            (Token::Operator, "==") => Ok(Operator::Equal),
            (Token::Operator, "!=") => Ok(Operator::NotEqual),
            (Token::Operator, "~=") => Ok(Operator::Matches),
            (Token::Operator, other) => Err(self.error(piece.at, &format!("unsupported operator {other:?}"))),
            _ => Err(self.error(piece.at, r#"expected an operator ("=="|"!="|"~=")"#)),
        }
    }

    fn value(&mut self, is_regex: bool) -> Result<Vec<u8>, String> {
        let piece = self.scan()?;
        match piece.token {
            Token::Value => Ok(piece.text.as_bytes().to_vec()),
            Token::Quoted => self.unquote(piece, is_regex),
            _ => Err(self.error(piece.at, "expected value or quoted")),
        }
    }

    fn unquote(&self, piece: Piece<'a>, is_regex: bool) -> Result<Vec<u8>, String> {
        if !is_regex && !piece.text.starts_with('"') {
            return Err(self.error(piece.at, "invalid quote encountered"));
        }
        unquote(piece.text).ok_or_else(|| self.error(piece.at, "unquoting failed: quote syntax error"))
    }

    fn scan(&mut self) -> Result<Piece<'a>, String> {
        self.scanner.scan().map_err(|Illegal { at, message }| self.error(at, message))
    }

    fn error(&self, at: usize, message: &str) -> String {
        let (before, after) = self.input.split_at_checked(at).unwrap_or((self.input, ""));
        let skip = before.chars().count().saturating_sub(QUOTED_CHARACTERS);
        let before: String = before.chars().skip(skip).collect();
        let mut after = after.chars();
        match after.next() {
            Some(here) => {
                let after: String = after.take(QUOTED_CHARACTERS).collect();
                format!("parse error: [{before} >|{here}|< {after}]: {message}")
            }
            None => format!("parse error: [{before}]: {message}"),
        }
    }
}
