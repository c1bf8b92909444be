//! Imports between files, from `use` declarations and from paths in the code, without tests and comments.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::tokens::tokens;

/// A crate whose files are checked.
pub(super) struct Source {
    /// Name by which other crates import it; empty for a binary.
    pub(super) name: &'static str,
    pub(super) folder: &'static str,
    /// File that declares the top-level modules.
    pub(super) entry: &'static str,
}

/// Path of a module: the folder of its crate, and the names below it.
type Module = Vec<String>;

/// Imports of all files.
pub(super) struct ImportGraph {
    /// File of each module.
    files: BTreeMap<Module, String>,
    modules: BTreeMap<String, Module>,
    /// Names of a file that stand for a module, by the module of the file.
    names: BTreeMap<Module, BTreeMap<String, Module>>,
    /// Modules whose names an entry file re-exports with `*`.
    globs: BTreeMap<Module, Vec<Module>>,
    /// Imported files of each file, with one path for each.
    imports: BTreeMap<String, BTreeMap<String, String>>,
    sources: &'static [Source],
}

/// A path as it is written in a module.
struct WrittenPath {
    scope: Module,
    path: Vec<String>,
    /// Name that a `use` declaration gives it; `*` for all names below it.
    name: Option<String>,
}

impl ImportGraph {
    /// Reads the imports of files, each a pair of name and source. Files of other folders are left out.
    pub(super) fn new(sources: &'static [Source], files: &[(String, String)]) -> Self {
        let mut graph = Self {
            files: BTreeMap::new(),
            modules: BTreeMap::new(),
            names: BTreeMap::new(),
            globs: BTreeMap::new(),
            imports: BTreeMap::new(),
            sources,
        };
        for (file, _) in files {
            if let Some(module) = graph.module_of(file) {
                graph.files.insert(module.clone(), file.clone());
                graph.modules.insert(file.clone(), module);
            }
        }
        let mut paths = Vec::new();
        for (file, source) in files {
            if let Some(module) = graph.modules.get(file) {
                paths.push((file, written_paths(module, &tokens(source))));
            }
        }
        // A name can stand for a module by way of a name of another file. Three steps are more than any path needs.
        for _ in 0..3 {
            for (file, written) in &paths {
                graph.add_names(file, written);
            }
        }
        for (file, written) in &paths {
            for path in written {
                let Some(target) = graph.resolve(path) else {
                    continue;
                };
                if let Some(target) = graph.files.get(&target)
                    && target != *file
                {
                    let imported = graph.imports.entry((*file).clone()).or_default();
                    imported
                        .entry(target.clone())
                        .or_insert_with(|| path.path.join("::"));
                }
            }
        }
        graph
    }

    /// Returns the importing file, the imported file and the path of each import.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.imports.iter().flat_map(|(file, imported)| {
            imported
                .iter()
                .map(move |(target, path)| (&**file, &**target, &**path))
        })
    }

    /// Returns a line for each import of an item from a file that declares the importing one.
    pub(super) fn imports_from_above(&self) -> Vec<String> {
        let from_above = self.all().filter(|(file, target, _)| {
            let (module, above) = (&self.modules[*file], &self.modules[*target]);
            module.len() > above.len() && module.starts_with(above)
        });
        from_above
            .map(|(file, target, path)| format!("{file} imports {path} from {target}"))
            .collect()
    }

    /// Returns cycles, each as lines of imports. A file is in one of them at most, so there may be more of them.
    pub(super) fn cycles(&self) -> Vec<String> {
        let mut seen = BTreeSet::new();
        let mut cycles = Vec::new();
        for file in self.imports.keys() {
            if seen.contains(file) {
                continue;
            }
            if let Some(cycle) = self.shortest_cycle(file) {
                let steps = cycle.iter().zip(cycle.iter().cycle().skip(1));
                let lines = steps
                    .map(|(from, to)| format!("{from} imports {to}: {}", self.imports[*from][*to]));
                cycles.push(lines.collect::<Vec<_>>().join("\n"));
                seen.extend(cycle);
            }
        }
        cycles
    }

    /// Returns the files of the shortest cycle through a file, which is the first of them.
    fn shortest_cycle<'a>(&'a self, start: &'a String) -> Option<Vec<&'a String>> {
        let mut previous: BTreeMap<&String, &String> = BTreeMap::new();
        let mut queue = VecDeque::from([start]);
        while let Some(file) = queue.pop_front() {
            for target in self.imports.get(file).into_iter().flat_map(BTreeMap::keys) {
                if target == start {
                    let mut cycle = vec![file];
                    while cycle[cycle.len() - 1] != start {
                        cycle.push(previous[cycle[cycle.len() - 1]]);
                    }
                    cycle.reverse();
                    return Some(cycle);
                }
                if !previous.contains_key(target) {
                    previous.insert(target, file);
                    queue.push_back(target);
                }
            }
        }
        None
    }

    fn module_of(&self, file: &str) -> Option<Module> {
        let below = |source: &'static Source| {
            let rest = file.strip_prefix(source.folder)?.strip_prefix('/')?;
            Some((source, rest))
        };
        // The longest folder: a binary is in a folder of the library's.
        let found = self.sources.iter().filter_map(below);
        let (source, rest) = found.max_by_key(|(source, _)| source.folder.len())?;
        let mut module = vec![source.folder.to_owned()];
        if rest != source.entry {
            let names = rest.strip_suffix(".rs")?.split('/');
            module.extend(names.map(str::to_owned));
            module.pop_if(|name| name == "mod");
        }
        Some(module)
    }

    fn add_names(&mut self, file: &str, written: &[WrittenPath]) {
        let module = self.modules[file].clone();
        for path in written {
            let (Some(name), Some(absolute)) = (&path.name, self.absolute(path)) else {
                continue;
            };
            let (found, is_whole) = self.find(&absolute);
            if !is_whole {
                continue;
            }
            if name == "*" {
                self.globs.entry(module.clone()).or_default().push(found);
            } else {
                let names = self.names.entry(module.clone()).or_default();
                names.insert(name.clone(), found);
            }
        }
    }

    fn resolve(&self, path: &WrittenPath) -> Option<Module> {
        Some(self.find(&self.absolute(path)?).0)
    }

    /// Returns a path from the root of its crate; `None` for a path that begins with neither a module nor a crate.
    fn absolute(&self, path: &WrittenPath) -> Option<Module> {
        let first = path.path.first()?;
        let mut rest = &path.path[1..];
        let mut base = path.scope.clone();
        match first.as_str() {
            "crate" => base.truncate(1),
            "self" => {}
            "super" => {
                base.pop();
                while let Some(("super", next)) = rest.split_first().map(|(a, b)| (a.as_str(), b)) {
                    base.pop();
                    rest = next;
                }
            }
            name => {
                let mut child = base.clone();
                child.push(name.to_owned());
                let known = || self.names.get(&base)?.get(name).cloned();
                let source = || {
                    let mut sources = self.sources.iter();
                    let source = sources.find(|source| source.name == name)?;
                    Some(vec![source.folder.to_owned()])
                };
                base = if self.files.contains_key(&child) {
                    child
                } else {
                    known().or_else(source)?
                };
            }
        }
        base.extend(rest.iter().cloned());
        Some(base)
    }

    /// Returns the module of an absolute path, and true if the path has nothing after it.
    fn find(&self, absolute: &[String]) -> (Module, bool) {
        let mut found = vec![absolute[0].clone()];
        for name in &absolute[1..] {
            let mut child = found.clone();
            child.push(name.clone());
            if self.files.contains_key(&child) {
                found = child;
                continue;
            }
            // An entry file re-exports modules of another crate, so that their paths stay the same.
            let of_other_crate = || {
                let entry = (found.len() == 1).then_some(&found)?;
                let named = self.names.get(entry).and_then(|names| names.get(name));
                let glob = || {
                    let globs = self.globs.get(entry).into_iter().flatten();
                    let mut children =
                        globs.map(|glob| [&glob[..], std::slice::from_ref(name)].concat());
                    children.find(|child| self.files.contains_key(child))
                };
                named.cloned().or_else(glob)
            };
            match of_other_crate() {
                Some(module) => found = module,
                None => return (found, false),
            }
        }
        (found, true)
    }
}

/// Returns the paths of a file in the order of the code: those of `use` declarations, and those within the code.
fn written_paths(module: &Module, tokens: &[String]) -> Vec<WrittenPath> {
    let text = |position: usize| tokens.get(position).map_or("", String::as_str);
    let is_name =
        |position: usize| text(position).starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let mut found = Vec::new();
    let mut scope = module.clone();
    // The depths of the inline modules that contain this position.
    let mut inline = Vec::new();
    let (mut depth, mut position) = (0, 0);
    while position < tokens.len() {
        match text(position) {
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                if inline.pop_if(|at| *at == depth).is_some() {
                    scope.pop();
                }
            }
            "mod" if is_name(position + 1) && text(position + 2) == "{" => {
                scope.push(text(position + 1).to_owned());
                inline.push(depth);
                position += 1;
            }
            "use" if text(position + 1) != "<" => {
                let mut leaves = Vec::new();
                position = use_tree(tokens, position + 1, &[], &mut leaves);
                found.extend(leaves.into_iter().map(|(path, name)| WrittenPath {
                    scope: scope.clone(),
                    path,
                    name: Some(name),
                }));
                continue;
            }
            _ if is_name(position) && text(position + 1) == "::" => {
                let first = position;
                let mut path = vec![text(position).to_owned()];
                while text(position + 1) == "::" && is_name(position + 2) {
                    path.push(text(position + 2).to_owned());
                    position += 2;
                }
                let before = |count: usize| first.checked_sub(count).map_or("", text);
                // `pub(in crate::module)` imports nothing.
                let is_visibility = before(1) == "in" && before(2) == "(";
                // An exported macro is at the root of its crate.
                let is_macro = path.len() == 2
                    && text(position + 1) == "!"
                    && !["super", "self"].contains(&&*path[0]);
                // The rest of `<T as Trait>::Item` or `$crate::name`.
                let is_rest = ["::", "$"].contains(&before(1));
                if path.len() > 1 && !is_visibility && !is_macro && !is_rest {
                    found.push(WrittenPath {
                        scope: scope.clone(),
                        path,
                        name: None,
                    });
                }
            }
            _ => {}
        }
        position += 1;
    }
    found
}

/// Reads a tree of a `use` declaration into its paths and their names, and returns the position after it.
fn use_tree(
    tokens: &[String],
    mut position: usize,
    prefix: &[String],
    leaves: &mut Vec<(Vec<String>, String)>,
) -> usize {
    let mut path = prefix.to_vec();
    loop {
        match tokens[position].as_str() {
            "::" => {}
            "{" => {
                position += 1;
                while tokens[position] != "}" {
                    position = use_tree(tokens, position, &path, leaves);
                    if tokens[position] == "," {
                        position += 1;
                    }
                }
                return position + 1;
            }
            "*" => {
                leaves.push((path, "*".to_owned()));
                return position + 1;
            }
            name => {
                // `path::{self}` names the path itself.
                if name != "self" || path.is_empty() {
                    path.push(name.to_owned());
                }
                if tokens[position + 1] != "::" {
                    break;
                }
            }
        }
        position += 1;
    }
    position += 1;
    let mut name = path[path.len() - 1].clone();
    if tokens[position] == "as" {
        name.clone_from(&tokens[position + 1]);
        position += 2;
    }
    leaves.push((path, name));
    position
}

const EXAMPLE: [Source; 3] = [
    Source {
        name: "shop",
        folder: "src",
        entry: "lib.rs",
    },
    Source {
        name: "",
        folder: "src/bin/shop",
        entry: "main.rs",
    },
    Source {
        name: "shop_core",
        folder: "crates/core/src",
        entry: "lib.rs",
    },
];

fn graph(files: &[(&str, &str)]) -> ImportGraph {
    let files = files.iter();
    let files: Vec<_> = files
        .map(|(name, source)| ((*name).to_owned(), (*source).to_owned()))
        .collect();
    ImportGraph::new(&EXAMPLE, &files)
}

/// Asserts that these files of a module have one cycle, with these two imports.
#[track_caller]
fn assert_cycle(files: &[(&str, &str)], expected: &str) {
    assert_eq!(graph(files).cycles(), [expected], "{files:?}");
}

#[test]
fn cycle_is_found_in_every_way_to_write_an_import() {
    const THERE_AND_BACK: &str = "src/a/one.rs imports src/a/two.rs: super::two::Two\n\
         src/a/two.rs imports src/a/one.rs: ";
    let there = ("src/a/one.rs", "use super::two::Two; pub struct One;");
    let parent = ("src/a/mod.rs", "mod one;\nmod two;");
    for (back, path) in [
        ("use super::one::One;", "super::one::One"),
        ("pub use super::one::One as Other;", "super::one::One"),
        ("use super::one;", "super::one"),
        ("use super::one::*;", "super::one"),
        ("use crate::a::one::One;", "crate::a::one::One"),
        (
            "use crate::{a::{one::{self, One}, other}, b};",
            "crate::a::one",
        ),
        ("use super::{\n    one::{One},\n};", "super::one::One"),
        (
            "use super::super::a::one::One;",
            "super::super::a::one::One",
        ),
        ("fn f() { super::one::f(); }", "super::one::f"),
        (
            "fn f() -> Vec<crate::a::one::One> { g() }",
            "crate::a::one::One",
        ),
        (
            "fn f() { for x in super::one::all() {} }",
            "super::one::all",
        ),
        (
            "fn f() { format!(\"{}\", super::one::NAME) }",
            "super::one::NAME",
        ),
        (
            "mod inner { use super::super::one::One; }",
            "super::super::one::One",
        ),
        (
            "#[cfg(test)]\nuse x::Y;\nuse super::one::One;",
            "super::one::One",
        ),
        (
            "fn f() { 'a'; '\\''; b'\"'; \"\\\"\"; r#\"\"\"#; super::one::f() }",
            "super::one::f",
        ),
        ("fn f<'a>(x: &'a str) { super::one::f(x) }", "super::one::f"),
    ] {
        let expected = format!("{THERE_AND_BACK}{path}");
        assert_cycle(&[parent, there, ("src/a/two.rs", back)], &expected);
    }
    // By a name of the file.
    let by_name = "use crate::{a as shelf};\nfn f() { shelf::one::f() }";
    let expected = format!("{THERE_AND_BACK}shelf::one::f");
    assert_cycle(&[parent, there, ("src/a/two.rs", by_name)], &expected);
}

#[test]
fn cycle_through_parent_is_found() {
    let files = [
        ("src/a/mod.rs", "mod one;\nmod two;\npub use one::One;"),
        ("src/a/one.rs", "pub struct One(super::two::Two);"),
        ("src/a/two.rs", "use super::One;"),
    ];
    assert_cycle(
        &files,
        "src/a/mod.rs imports src/a/one.rs: one::One\n\
         src/a/one.rs imports src/a/two.rs: super::two::Two\n\
         src/a/two.rs imports src/a/mod.rs: super::One",
    );
    let from_above = "src/a/two.rs imports super::One from src/a/mod.rs";
    assert_eq!(graph(&files).imports_from_above(), [from_above]);
    // Without a cycle, an import from above is found as well, also in a binary.
    let files = [
        ("src/bin/shop/main.rs", "mod serve;\nfn print() {}"),
        (
            "src/bin/shop/serve.rs",
            "use crate::print;\nuse shop::a::One;",
        ),
        ("src/a/mod.rs", "pub struct One;"),
    ];
    let graph = graph(&files);
    assert!(graph.cycles().is_empty());
    let from_above = "src/bin/shop/serve.rs imports crate::print from src/bin/shop/main.rs";
    assert_eq!(graph.imports_from_above(), [from_above]);
}

#[test]
fn cycle_through_other_crate_is_found() {
    for entry in ["pub use shop_core::{a, b};", "pub use shop_core::*;"] {
        let files = [
            ("src/lib.rs", entry),
            ("src/c.rs", "use crate::a::One;"),
            ("crates/core/src/lib.rs", "pub mod a;\npub mod b;"),
            ("crates/core/src/a.rs", "pub struct One(crate::b::Two);"),
            ("crates/core/src/b.rs", "use shop::c::Three;"),
        ];
        assert_cycle(
            &files,
            "crates/core/src/a.rs imports crates/core/src/b.rs: crate::b::Two\n\
             crates/core/src/b.rs imports src/c.rs: shop::c::Three\n\
             src/c.rs imports crates/core/src/a.rs: crate::a::One",
        );
    }
}

#[test]
fn tests_comments_and_exported_macros_import_nothing() {
    for back in [
        "// use super::one::One;\n/* super::one::f() /* */ super::one::g() */",
        "/// See [`One`](super::one::One).",
        "const TEXT: &str = \"super::one::One\";",
        "const TEXT: &str = r#\"\"super::one::One\"#;",
        "#[cfg(test)]\nmod tests { use super::super::one::One; fn f() { {} } }",
        "#[cfg(test)]\npub(super) mod tests { use super::super::one::One; }",
        "#[cfg(test)]\nuse super::one::One;",
        "#[cfg(test)]\n#[test]\nfn f() { super::one::f() }",
        "pub(in crate::a::one) fn f() {}",
        "fn f() { crate::crash_point!(\"x\"); $crate::a::one::f(); }",
        "use std::one::One; fn f() { Self::one::f(); <T as X>::super::one::f(); other::one::f() }",
    ] {
        let files = [
            ("src/a/mod.rs", "mod one;\nmod two;"),
            ("src/a/one.rs", "use super::two::Two;"),
            ("src/a/two.rs", back),
            ("src/lib.rs", "pub mod a;"),
        ];
        let graph = graph(&files);
        let imports: Vec<_> = graph.all().collect();
        let expected = ("src/a/one.rs", "src/a/two.rs", "super::two::Two");
        assert_eq!(imports, [expected], "{back}");
    }
}
