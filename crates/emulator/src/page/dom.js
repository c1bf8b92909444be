// Functions to create and update elements. Texts enter the page as text nodes only, so that nothing that a user or bot
// writes is parsed as HTML.

export const $ = (id) => document.getElementById(id);

/** Creates an element: `h("a", { href, class, onclick, "aria-label" }, child, …)`. Ignores null and false. */
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

/** Replaces the content of `parent`. The focus stays on the element with the same data-key. */
export function fill(parent, ...children) {
  const key = parent.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  parent.replaceChildren(...children.flat(Infinity).filter((child) => child != null && child !== false));
  if (key) [...parent.querySelectorAll("[data-key]")].find((element) => element.dataset.key === key)?.focus({ preventScroll: true });
}

const inputs = new WeakMap(); // element -> JSON of the input that its content was made from

// An event and a response have the keys of the same object in different orders.
const sortKeys = (_, value) => (value?.constructor === Object ? Object.fromEntries(Object.entries(value).sort()) : value);

/** Fills `parent` with the result of `make`, unless its content was made from equal input. Returns whether it did. */
export function fillIfChanged(parent, input, make) {
  // Unchanged elements stay in place, so that a click or a text selection in progress is not lost.
  const text = JSON.stringify(input, sortKeys);
  if (inputs.get(parent) === text) return false;
  inputs.set(parent, text);
  fill(parent, make());
  return true;
}

/** Makes `children` the content of `parent`. Elements that stay keep their focus, and a click in progress. */
export function placeChildren(parent, children) {
  const kept = new Set(children);
  const focused = document.activeElement;
  for (const child of [...parent.children]) if (!kept.has(child)) child.remove();
  // Insert only children that are not in their position: moving an element loses its focus and interrupts a click.
  children.forEach((child, index) => child !== parent.children[index] && parent.insertBefore(child, parent.children[index] ?? null));
  if (focused !== document.activeElement && parent.contains(focused)) focused.focus({ preventScroll: true }); // its element was moved
}

const lists = new WeakMap(); // element -> Map: key of an item -> its child

/** Keeps one child per item, in order. `make` creates a child once, and `update` updates it every time. */
export function syncChildren(parent, items, keyOf, make, update) {
  const previous = lists.get(parent) ?? new Map();
  const children = new Map(items.map((item) => [keyOf(item), previous.get(keyOf(item)) ?? make(item)]));
  lists.set(parent, children);
  placeChildren(parent, [...children.values()]);
  for (const item of items) update(children.get(keyOf(item)), item);
}

const scheduled = new Set();
/** Calls `draw` in the next frame, once for any number of calls: a burst of events then causes one update. */
export function onNextFrame(draw) {
  if (!scheduled.size) requestAnimationFrame(() => {
    // Clear before calling: a function may schedule itself again for the following frame.
    const now = [...scheduled];
    scheduled.clear();
    now.forEach((call) => call());
  });
  scheduled.add(draw);
}

/** Shows a short notice in the corner. Screen readers announce it. */
export function notice(text, isError = false) {
  const line = h("p", { class: isError ? "bad" : null }, text);
  $("notices").append(line);
  setTimeout(() => line.remove(), isError ? 10000 : 4000);
}

/** Wraps an event handler: shows a notice when it fails, instead of losing the error. */
export const reportErrors = (handler) => async (event) => {
  try {
    await handler(event);
  } catch (error) {
    notice(error.message, true);
  }
};

export function download(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
  h("a", { href: url, download: name }).click();
  // Not immediately: the browser reads the URL after the click event.
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
