// WhatsApp's markup: bold, italic, struck-out and monospaced text, lists and quotations.
//
// Source: WhatsApp's "How to format your messages".

import { h } from "./dom.js";

const INLINE = [["*", "strong"], ["_", "em"], ["~", "s"]];
const isWordCharacter = (character) => character !== undefined && /[\p{L}\p{N}]/u.test(character);
const isBlank = (character) => character === undefined || /\s/.test(character);

/** Returns the position of the mark that ends what begins at `start`, or -1. */
function endOf(mark, text, start) {
  // A mark in a word, as in snake_case or 2*3*4, and one next to a blank are characters.
  if (isWordCharacter(text[start - 1]) || isBlank(text[start + 1]) || text[start + 1] === mark) return -1;
  for (let end = text.indexOf(mark, start + 2); end >= 0; end = text.indexOf(mark, end + 1)) {
    if (!isBlank(text[end - 1]) && !isWordCharacter(text[end + 1])) return end;
  }
  return -1;
}

/** Returns the nodes of one line. */
function inlineNodes(text) {
  const nodes = [];
  let plain = "";
  const add = (node) => {
    if (plain) nodes.push(plain);
    plain = "";
    nodes.push(node);
  };
  for (let at = 0; at < text.length; at += 1) {
    if (text[at] === "`" && text.indexOf("`", at + 1) > at + 1) {
      const end = text.indexOf("`", at + 1);
      add(h("code", {}, text.slice(at + 1, end)));
      at = end;
      continue;
    }
    const [mark, tag] = INLINE.find(([known]) => known === text[at]) ?? [];
    const end = mark ? endOf(mark, text, at) : -1;
    if (end < 0) {
      plain += text[at];
      continue;
    }
    add(h(tag, {}, inlineNodes(text.slice(at + 1, end))));
    at = end;
  }
  if (plain) nodes.push(plain);
  return nodes;
}

const BLOCKS = [
  { pattern: /^[-*] (.*)$/, make: (items) => h("ul", {}, items.map(([, text]) => h("li", {}, inlineNodes(text)))) },
  { pattern: /^(\d{1,9})\. (.*)$/, make: (items) => h("ol", { start: items[0][1] }, items.map(([, number, text]) => h("li", { value: number }, inlineNodes(text)))) },
  { pattern: /^> ?(.*)$/, make: (items) => h("blockquote", {}, items.map(([, text], index) => [index > 0 && "\n", inlineNodes(text)])) },
];

/** Returns the nodes of a text without blocks of code. */
function blockNodes(text) {
  const nodes = [];
  const lines = text.split("\n");
  let isText = false; // whether the line before is a line of text, which needs a line break
  for (let at = 0; at < lines.length; at += 1) {
    const block = BLOCKS.find(({ pattern }) => pattern.test(lines[at]));
    if (!block) {
      if (isText) nodes.push("\n");
      nodes.push(inlineNodes(lines[at]));
      isText = true;
      continue;
    }
    const items = [];
    for (; at < lines.length && block.pattern.test(lines[at]); at += 1) items.push(lines[at].match(block.pattern));
    at -= 1;
    nodes.push(block.make(items));
    isText = false;
  }
  return nodes;
}

/** Returns the nodes that show a text as WhatsApp does. */
export function markupNodes(text) {
  // Code first: marks in it are characters, and it may have several lines.
  return text.split(/(```[^]*?[^\s`][^]*?```)/).map((part, index) => {
    if (index % 2) return h("code", { class: "mono" }, part.slice(3, -3));
    return part && blockNodes(part);
  });
}
