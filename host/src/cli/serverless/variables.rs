//! Variables in files of Serverless Devs: `${vars.region}`, `${env('NAME', 'default')}`, `${file('note.txt')}`,
//! `${resources.other.props.functionName}`, `${this.props.runtime}`.

use std::cell::Cell;
use std::path::Path;

use anyhow::{Context as _, bail};

use super::yaml::{Data, Node};

/// How often a variable may lead to another one.
const DEPTH_MAX: usize = 16;
/// Bytes of a file that becomes a value.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Values, and bytes of texts, that come of variables together.
pub(super) const LEFT: usize = 16 << 20;

/// What variables are looked up in.
pub(super) struct Scope<'a> {
    /// The whole file.
    pub(super) root: &'a Node,
    /// The resource that `this` stands for, if it is in one.
    pub(super) this: Option<&'a Node>,
    /// Where files are looked for.
    pub(super) folder: &'a Path,
    /// The environment.
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
    /// How many values, and bytes of texts, may still come of it.
    pub(super) left: Cell<usize>,
}

impl Scope<'_> {
    /// A value with its variables replaced. What is wrong is told with its line.
    pub(super) fn resolve(&self, node: &Node) -> anyhow::Result<Node> {
        self.resolved(node, DEPTH_MAX)
    }

    fn resolved(&self, node: &Node, depth: usize) -> anyhow::Result<Node> {
        let line = node.line;
        self.count(1)?;
        let data = match &node.data {
            Data::Text(text) => return self.text(text, line, depth),
            Data::List(list) => {
                Data::List(list.iter().map(|node| self.resolved(node, depth)).collect::<anyhow::Result<_>>()?)
            }
            Data::Map(map) => Data::Map(
                map.iter()
                    .map(|(key, value)| Ok((key.clone(), self.resolved(value, depth)?)))
                    .collect::<anyhow::Result<_>>()?,
            ),
            other => other.clone(),
        };
        Ok(Node { line, data })
    }

    /// A text that is one variable becomes its value, which need not be a text.
    fn text(&self, text: &str, line: usize, depth: usize) -> anyhow::Result<Node> {
        let mut whole = String::new();
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            let after = &rest[start + 2..];
            let end = after.find('}').with_context(|| format!("line {line}: `${{` has no `}}` in {text:?}"))?;
            let (inner, tail) = (after[..end].trim(), &after[end + 1..]);
            let value = self.value(inner, depth).with_context(|| format!("line {line}: `${{{inner}}}`"))?;
            if start == 0 && tail.is_empty() && whole.is_empty() {
                return Ok(Node { line, ..value });
            }
            whole.push_str(&rest[..start]);
            let value = value.to_string();
            self.count(value.len())?;
            whole.push_str(&value);
            rest = tail;
        }
        whole.push_str(rest);
        Ok(Node { line, data: Data::Text(whole) })
    }

    /// Variables may lead to each other in such a way that little becomes a lot.
    fn count(&self, more: usize) -> anyhow::Result<()> {
        let left = self
            .left
            .get()
            .checked_sub(more)
            .with_context(|| format!("variables make more than {LEFT} values and bytes of text"))?;
        self.left.set(left);
        Ok(())
    }

    fn value(&self, inner: &str, depth: usize) -> anyhow::Result<Node> {
        if depth == 0 {
            bail!("leads to itself, or over more than {DEPTH_MAX} others");
        }
        let text = |text: String| Node { line: 0, data: Data::Text(text) };
        if let Some((name, rest)) = inner.split_once('(')
            && let Some(arguments) = rest.strip_suffix(')')
        {
            let mut arguments = arguments.split(',').map(unquoted);
            let first = arguments.next().unwrap_or_default();
            return match name.trim() {
                "env" => {
                    let found = (self.env)(&first).or_else(|| arguments.next());
                    found.map(text).with_context(|| format!("the environment has no {first}, and no default is given"))
                }
                "file" => self.file(&first).map(text),
                // The account and its names are of no meaning here.
                "config" => Ok(text("0".to_owned())),
                other => bail!("`{other}` is not known; known are `env`, `file` and `config`"),
            };
        }
        let (base, path) = match inner.split_once('.') {
            Some(("vars", path)) => (self.root.get("vars"), path),
            Some(("env", name)) => return (self.env)(name).map(text).context("the environment does not have it"),
            Some(("this", path)) => (self.this, path),
            Some(("resources" | "services", path)) => {
                (self.root.get("resources").or_else(|| self.root.get("services")), path)
            }
            // The older form begins with the resource's name.
            _ => (self.root.get("resources").or_else(|| self.root.get("services")), inner),
        };
        if path.split('.').nth(1) == Some("output") {
            bail!("what a deployment answers is not known before it is made");
        }
        let found = path.split('.').try_fold(base.unwrap_or(self.root), |node, part| node.get(part));
        let found = found.filter(|_| base.is_some()).with_context(|| "is not there".to_owned())?;
        self.resolved(found, depth - 1)
    }

    fn file(&self, name: &str) -> anyhow::Result<String> {
        let path = self.folder.join(name);
        let data = std::fs::metadata(&path).with_context(|| format!("read {}", path.display()))?;
        if !data.is_file() || data.len() > FILE_BYTES_MAX {
            bail!("{} must be a file of at most {FILE_BYTES_MAX} bytes", path.display());
        }
        std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }
}

/// An argument without its quotes.
fn unquoted(text: &str) -> String {
    text.trim().trim_matches(['\'', '"']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "vars: {size: 512, name: shop, deep: {a: '${vars.name}-x'}, loop: '${vars.loop}', \
        b0: xxxxxxxxxxxxxxxx, b1: '${vars.b0}${vars.b0}${vars.b0}${vars.b0}${vars.b0}${vars.b0}${vars.b0}${vars.b0}${vars.b0}${vars.b0}', \
        b2: '${vars.b1}${vars.b1}${vars.b1}${vars.b1}${vars.b1}${vars.b1}${vars.b1}${vars.b1}${vars.b1}${vars.b1}', \
        b3: '${vars.b2}${vars.b2}${vars.b2}${vars.b2}${vars.b2}${vars.b2}${vars.b2}${vars.b2}${vars.b2}${vars.b2}', \
        b4: '${vars.b3}${vars.b3}${vars.b3}${vars.b3}${vars.b3}${vars.b3}${vars.b3}${vars.b3}${vars.b3}${vars.b3}', \
        b5: '${vars.b4}${vars.b4}${vars.b4}${vars.b4}${vars.b4}${vars.b4}${vars.b4}${vars.b4}${vars.b4}${vars.b4}', \
        b6: '${vars.b5}${vars.b5}${vars.b5}${vars.b5}${vars.b5}${vars.b5}${vars.b5}${vars.b5}${vars.b5}${vars.b5}'}\n\
        resources: {one: {props: {runtime: python3, functionName: '${vars.name}-one'}}}\n";

    fn resolved(text: &str) -> anyhow::Result<serde_json::Value> {
        let root = Node::parse(FILE).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("note.txt"), "a note").unwrap();
        let env = |name: &str| (name == "STAGE").then(|| "prod".to_owned());
        let this = root.get("resources").and_then(|resources| resources.get("one"));
        let scope = Scope { root: &root, this, folder: folder.path(), env: &env, left: Cell::new(LEFT) };
        scope.resolve(&Node { line: 7, data: Data::Text(text.to_owned()) }).map(|node| node.json())
    }

    #[test]
    fn variables_become_their_values() {
        for (text, value) in [
            ("plain", serde_json::json!("plain")),
            ("${vars.size}", 512.into()),
            ("${ vars.deep.a }!", "shop-x!".into()),
            ("${env('STAGE')}-${env(NONE, 'other')}", "prod-other".into()),
            ("${env.STAGE}", "prod".into()),
            ("${file('note.txt')}", "a note".into()),
            ("${this.props.runtime}", "python3".into()),
            ("${resources.one.props.functionName}", "shop-one".into()),
            ("${one.props.runtime}", "python3".into()),
        ] {
            assert_eq!(resolved(text).unwrap(), value, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_replaced_is_named_with_its_line() {
        for (text, part) in [
            ("${vars.none}", "`${vars.none}`: is not there"),
            ("${env('NONE')}", "the environment has no NONE"),
            ("${file('none.txt')}", "none.txt"),
            ("${vars.loop}", "leads to itself"),
            ("${vars.b6}", "variables make more than"),
            ("${file('/dev/zero')}", "must be a file of at most"),
            ("${vars.size", "has no `}`"),
            ("${uuid(1)}", "`uuid` is not known"),
            ("${resources.one.output.url}", "not known before it is made"),
        ] {
            let error = format!("{:#}", resolved(text).unwrap_err());
            assert!(error.starts_with("line 7: ") && error.contains(part), "{error}");
        }
    }
}
