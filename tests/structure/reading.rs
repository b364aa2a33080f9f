//! A source as the rules see it: the words it is made of, the paths that it mentions, its functions, and which of its lines are tests.
//!
//! `syn` says what is an item, a path or a `use`; comments and strings say nothing. Into macros it does not look: their paths are taken from
//! their tokens.

use proc_macro2::{Delimiter, LexError, Span, TokenStream, TokenTree};
use std::ops::RangeInclusive;
use syn::visit::{self, Visit};

/// Path segments from the root of the library; in paths that are not ours, from the name of the crate.
pub type Segments = Vec<String>;

pub struct File {
    /// Below `src/`; the laboratory's files are read as if they lay in `src/sim/`.
    pub name: String,
    pub module: Segments,
    pub lines: usize,
    pub words: Vec<Word>,
    pub paths: Vec<Found>,
    pub functions: Vec<Function>,
    /// Lines of items that only tests are built with.
    pub tests: Vec<RangeInclusive<usize>>,
    /// Modules in files of their own, and whether they are built for tests alone.
    pub children: Vec<(Segments, bool)>,
    /// All of it is tests.
    pub is_test: bool,
}

/// A word, a mark, or a bracket.
pub struct Word {
    pub text: String,
    pub line: usize,
}

/// A path that could lead out of the file.
pub struct Found {
    pub line: usize,
    pub segments: Segments,
    pub is_ours: bool,
    pub by: By,
}

pub enum By {
    /// In the midst of the code.
    Mention,
    /// A `use` in this module, the name that it gives (`*`: all), and whether others may take it from here.
    Use { module: Segments, name: String, is_public: bool },
}

pub struct Function {
    pub name: String,
    pub line: usize,
    pub lines: usize,
}

impl File {
    pub fn read(name: &str, text: &str) -> Result<File, String> {
        let fault = |at: Span, what: String| format!("{}: cannot be read: {what}", at.start().line);
        let lexed: Result<TokenStream, LexError> = text.parse();
        let tokens = lexed.map_err(|error| fault(error.span(), error.to_string()))?;
        let mut module: Segments = name.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        module.pop_if(|last| ["mod", "lib", "main"].contains(&last.as_str()));
        let mut file = File {
            name: name.to_owned(),
            module: module.clone(),
            lines: text.lines().count(),
            words: Vec::new(),
            paths: Vec::new(),
            functions: Vec::new(),
            tests: Vec::new(),
            children: Vec::new(),
            is_test: false,
        };
        file.take_words(tokens.clone());
        file.find_tests(tokens.clone());
        let tree: syn::File = syn::parse2(tokens).map_err(|error| fault(error.span(), error.to_string()))?;
        let mut reader = Reader { file: &mut file, module, modules: Vec::new(), written: Vec::new() };
        reader.visit_file(&tree);
        reader.resolve();
        Ok(file)
    }

    pub fn in_tests(&self, line: usize) -> bool {
        self.is_test || self.tests.iter().any(|lines| lines.contains(&line))
    }

    /// Whether these words stand somewhere one after the other.
    pub fn has(&self, words: &str) -> bool {
        let words: Vec<&str> = words.split(' ').collect();
        self.words.windows(words.len()).any(|window| window.iter().zip(&words).all(|(found, word)| found.text == *word))
    }

    fn take_words(&mut self, tokens: TokenStream) {
        for token in tokens {
            let line = token.span().start().line;
            let mut take = |text: String, line| self.words.push(Word { text, line });
            let TokenTree::Group(group) = token else {
                take(token.to_string(), line);
                continue;
            };
            let (open, close) = match group.delimiter() {
                Delimiter::Parenthesis => ("(", ")"),
                Delimiter::Brace => ("{", "}"),
                Delimiter::Bracket => ("[", "]"),
                Delimiter::None => ("", ""),
            };
            take(open.to_owned(), line);
            self.take_words(group.stream());
            self.words.push(Word { text: close.to_owned(), line: group.span_close().end().line });
        }
    }

    /// What stands behind `#[cfg(test)]` or `#[cfg(all(test, …))]`: an item, a statement, a field.
    fn find_tests(&mut self, tokens: TokenStream) {
        let mut tokens = tokens.into_iter().peekable();
        while let Some(token) = tokens.next() {
            if is_mark(&token, '#') && tokens.peek().is_some_and(is_for_tests) {
                self.tests.push(token.span().start().line..=last_line(&mut tokens));
            } else if let TokenTree::Group(group) = token {
                self.find_tests(group.stream());
            }
        }
    }
}

fn is_mark(token: &TokenTree, mark: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == mark)
}

fn is_for_tests(token: &TokenTree) -> bool {
    let text: String = token.to_string().split_whitespace().collect();
    text == "[cfg(test)]" || text.starts_with("[cfg(all(test,")
}

/// Where the item ends that these tokens begin with: at its braces, a semicolon, or a comma outside generic parameters.
fn last_line(tokens: &mut impl Iterator<Item = TokenTree>) -> usize {
    let (mut angles, mut before, mut line) = (0, ' ', 0);
    for token in tokens {
        line = token.span().end().line;
        let mark = match &token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => break,
            TokenTree::Punct(punct) => punct.as_char(),
            _ => ' ',
        };
        match mark {
            ';' => break,
            ',' if angles == 0 => break,
            '<' => angles += 1,
            // No arrow.
            '>' if !['-', '='].contains(&before) => angles -= 1,
            _ => {}
        }
        before = mark;
    }
    line
}

/// Walks through a file's syntax; what it finds is resolved when all modules of the file are known.
struct Reader<'a> {
    file: &'a mut File,
    module: Segments,
    modules: Vec<Segments>,
    /// Paths as they are written, and the module that they stand in.
    written: Vec<(Found, Segments)>,
}

impl Reader<'_> {
    fn find(&mut self, line: usize, segments: Segments, by: By) {
        let is_ours = false;
        let found = Found { line, segments, is_ours, by };
        self.written.push((found, self.module.clone()));
    }

    fn resolve(self) {
        for (mut found, module) in self.written {
            let first = found.segments[0].clone();
            let child = [&module[..], std::slice::from_ref(&first)].concat();
            let mut resolved = match first.as_str() {
                "strowger" => Vec::new(),
                // The laboratory's root is a room of its own for us.
                "crate" if self.file.name.starts_with("sim/") => vec!["sim".to_owned()],
                "crate" => Vec::new(),
                "self" | "super" => module,
                _ if self.modules.contains(&child) => child,
                _ => {
                    self.file.paths.push(found);
                    continue;
                }
            };
            let ups = found.segments.iter().filter(|segment| *segment == "super").count();
            resolved.truncate(resolved.len().saturating_sub(ups));
            let names = found.segments.iter().skip(1).filter(|segment| !["self", "super"].contains(&segment.as_str()));
            resolved.extend(names.cloned());
            (found.segments, found.is_ours) = (resolved, true);
            self.file.paths.push(found);
        }
    }

    /// One branch after the other of what a `use` names.
    fn read_use(&mut self, tree: &syn::UseTree, mut path: Segments, is_public: bool) {
        let (at, last, name) = match tree {
            syn::UseTree::Path(step) => {
                path.push(plain(&step.ident));
                return self.read_use(&step.tree, path, is_public);
            }
            syn::UseTree::Group(group) => {
                let branches = group.items.iter();
                return branches.for_each(|tree| self.read_use(tree, path.clone(), is_public));
            }
            syn::UseTree::Name(name) => (name.ident.span(), plain(&name.ident), None),
            syn::UseTree::Rename(renamed) => (renamed.ident.span(), plain(&renamed.ident), Some(plain(&renamed.rename))),
            syn::UseTree::Glob(glob) => (glob.star_token.span, "*".to_owned(), None),
        };
        // `a::{self}` is `a`.
        if last != "self" || path.is_empty() {
            path.push(last);
        }
        let name = name.or_else(|| path.last().cloned()).unwrap_or_default();
        let line = at.start().line;
        let module = self.module.clone();
        self.find(line, path, By::Use { module, name, is_public });
    }

    /// The paths in a macro: words with `::` between them, and braces behind the last as in a `use`.
    fn read_tokens(&mut self, tokens: TokenStream, prefix: &[String]) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let is_separator = |at: usize| [at, at + 1].iter().all(|at| tokens.get(*at).is_some_and(|token| is_mark(token, ':')));
        let mut at = 0;
        while at < tokens.len() {
            let line = tokens[at].span().start().line;
            let mut path = prefix.to_vec();
            while let Some(TokenTree::Ident(word)) = tokens.get(at) {
                path.push(plain(word));
                at += 1;
                if !is_separator(at) {
                    break;
                }
                at += 2;
            }
            match tokens.get(at) {
                Some(TokenTree::Group(group)) => {
                    let is_tree = at > 1 && is_separator(at - 2) && group.delimiter() == Delimiter::Brace;
                    self.read_tokens(group.stream(), if is_tree { &path } else { &[] });
                }
                Some(token) if is_mark(token, '*') && at > 1 && is_separator(at - 2) => path.push("*".to_owned()),
                _ => {}
            }
            if path.len() > prefix.len().max(1) {
                self.find(line, path, By::Mention);
            }
            if !matches!(tokens.get(at), Some(TokenTree::Ident(_))) {
                at += 1;
            }
        }
    }

    fn take_function(&mut self, signature: &syn::Signature, body: &syn::Block) {
        let line = signature.fn_token.span.start().line;
        let lines = body.brace_token.span.close().end().line + 1 - line;
        let name = plain(&signature.ident);
        self.file.functions.push(Function { name, line, lines });
    }
}

fn plain(ident: &proc_macro2::Ident) -> String {
    ident.to_string().trim_start_matches("r#").to_owned()
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.module.push(plain(&item.ident));
        self.modules.push(self.module.clone());
        if item.content.is_none() {
            let is_test = self.file.in_tests(item.ident.span().start().line);
            self.file.children.push((self.module.clone(), is_test));
        }
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let is_public = !matches!(item.vis, syn::Visibility::Inherited);
        self.read_use(&item.tree, Vec::new(), is_public);
        item.attrs.iter().for_each(|attribute| self.visit_attribute(attribute));
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Segments = path.segments.iter().map(|segment| plain(&segment.ident)).collect();
        if segments.len() > 1 {
            let line = path.segments[0].ident.span().start().line;
            self.find(line, segments, By::Mention);
        }
        visit::visit_path(self, path);
    }

    /// `pub(in path)` takes nothing in.
    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        self.read_tokens(called.tokens.clone(), &[]);
        visit::visit_macro(self, called);
    }

    fn visit_meta_list(&mut self, list: &'ast syn::MetaList) {
        self.read_tokens(list.tokens.clone(), &[]);
        visit::visit_meta_list(self, list);
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.take_function(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.take_function(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(body) = &item.default {
            self.take_function(&item.sig, body);
        }
        visit::visit_trait_item_fn(self, item);
    }
}
