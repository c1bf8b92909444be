// Making elements. Texts only ever enter as text nodes: nothing that a user or a bot writes is parsed as HTML.

export const $ = (id) => document.getElementById(id);

/** An element: `h("a", { href, class, onclick, "aria-label" }, child, …)`; null and false are left out. */
export function h(tag, props, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value == null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return element;
}

/** Replaces what is in `parent`; the focus stays with the element of the same data-key. */
export function fill(parent, ...children) {
  const key = parent.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  parent.replaceChildren(...children.flat(Infinity).filter((child) => child != null && child !== false));
  if (key) [...parent.querySelectorAll("[data-key]")].find((element) => element.dataset.key === key)?.focus();
}

const inputs = new WeakMap(); // element -> what its content was made of

/** Fills `parent` with what `make` returns, unless its content was made of the same input: what is the same stays under the pointer. */
export function refill(parent, input, make) {
  const text = JSON.stringify(input);
  if (inputs.get(parent) === text) return false;
  inputs.set(parent, text);
  fill(parent, make());
  return true;
}

const lists = new WeakMap(); // element -> Map: key of an item -> its child

/** A child for each item, in their order. It is made once, and stays: `update` brings it up to date. */
export function each(parent, items, keyOf, make, update) {
  const before = lists.get(parent) ?? new Map();
  const children = new Map(items.map((item) => [keyOf(item), before.get(keyOf(item)) ?? make(item)]));
  lists.set(parent, children);
  const focused = document.activeElement;
  for (const [key, child] of before) if (!children.has(key)) child.remove();
  [...children.values()].forEach((child, index) => child !== parent.children[index] && parent.insertBefore(child, parent.children[index] ?? null));
  if (focused !== document.activeElement && parent.contains(focused)) focused.focus({ preventScroll: true }); // it was moved
  for (const item of items) update(children.get(keyOf(item)), item);
}

// A burst of events is one redrawing.
const due = new Set();
export function soon(draw) {
  if (!due.size) requestAnimationFrame(() => {
    const now = [...due];
    due.clear();
    now.forEach((one) => one());
  });
  due.add(draw);
}

/** A passing word at the foot of the page, read out by screen readers. */
export function notice(text, bad = false) {
  const line = h("p", { class: bad ? "bad" : null }, text);
  $("notices").append(line);
  setTimeout(() => line.remove(), bad ? 10000 : 4000);
}

/** An event handler whose failure is told instead of lost. */
export const told = (work) => async (event) => {
  try {
    await work(event);
  } catch (error) {
    notice(error.message, true);
  }
};

export function download(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
