"""A flame graph as one SVG file: the width of a box is the share of the CPU in a function and what it calls. Boxes tell more under
the mouse, and a click on one makes it as wide as the picture; both work in a browser and are not needed to read it."""

import re
from xml.sax.saxutils import escape, quoteattr

WIDTH = 1400
MARGIN = 10
ROW = 17
LETTER = 6.6
# Narrower boxes are left out, pixels.
NARROWEST = 0.3


class Box:
    def __init__(self, name, kind):
        self.name, self.kind, self.count, self.boxes = name, kind, 0, {}

    def add(self, frames, count):
        self.count += count
        box = self
        for name, kind in frames:
            if name not in box.boxes:
                box.boxes[name] = Box(name, kind)
            box = box.boxes[name]
            box.count += count

    def depth(self, narrowest):
        return 1 + max((box.depth(narrowest) for box in self.boxes.values() if box.count >= narrowest), default=0)


def tree(stacks):
    """`stacks`: counts by tuples of (name, kind), outermost first."""
    root = Box("all", None)
    for frames, count in stacks.items():
        root.add(frames, count)
    return root


def svg(stacks, title, subtitle, colours):
    """`colours` by kind, in the order of the legend."""
    root = tree(stacks)
    scale = (WIDTH - 2 * MARGIN) / max(root.count, 1)
    narrowest = NARROWEST / scale
    depth = root.depth(narrowest)
    used = kinds(root)
    shown = [kind for kind in colours if kind in used]
    top = 74
    height = top + depth * ROW + 16
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="11">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="{MARGIN}" y="22" font-size="16" font-family="DejaVu Sans, sans-serif" font-weight="bold">{escape(title)}</text>',
        f'<text x="{MARGIN}" y="40" font-size="12" font-family="DejaVu Sans, sans-serif" fill="#444444">{escape(subtitle)}</text>',
    ]
    x = MARGIN
    for kind in shown:
        out.append(
            f'<rect x="{x}" y="49" width="12" height="12" fill="{colours[kind]}"/>'
            f'<text x="{x + 16}" y="59" font-family="DejaVu Sans, sans-serif">{escape(kind)}</text>'
        )
        x += 34 + 6.1 * len(kind)
    out.append('<g id="boxes">')

    def draw(box, x, level):
        width = box.count * scale
        y = top + (depth - 1 - level) * ROW
        share = 100 * box.count / root.count
        colour = colours.get(box.kind, "#eeeeee")
        told = f"{box.name} ({box.kind or 'everything'}): {share:.2f} %, {box.count:,} samples"
        out.append(
            f'<g class="box" data-x="{x:.2f}" data-w="{width:.2f}" data-name={quoteattr(box.name)}><title>{escape(told)}</title>'
            f'<rect x="{x:.2f}" y="{y}" width="{max(width - 0.4, 0.2):.2f}" height="{ROW - 1}" rx="1" fill="{colour}"/>'
            f'<text x="{x + 3:.2f}" y="{y + 12}" fill="{ink(colour)}">{escape(fitted(box.name, width))}</text></g>'
        )
        for inner in sorted(box.boxes.values(), key=lambda inner: inner.name):
            if inner.count >= narrowest:
                draw(inner, x, level + 1)
            x += inner.count * scale

    if root.count:
        draw(root, MARGIN, 0)
    out += ["</g>", SCRIPT % {"left": MARGIN, "width": WIDTH - 2 * MARGIN, "letter": LETTER}, "</svg>", ""]
    return "\n".join(out)


def kinds(box):
    found = {box.kind}
    for inner in box.boxes.values():
        found |= kinds(inner)
    return found


def fitted(name, width):
    """As much of a name as fits. A path gives up what is leftmost: its right end tells functions apart."""
    letters = int((width - 5) / LETTER)
    if letters < 3:
        return ""
    while len(name) > letters and re.match(r"[\w&<]+::", name):
        name = name.split("::", 1)[1]
    return name if len(name) <= letters else name[: letters - 1] + "…"


def ink(colour):
    """Black or white, whichever is read more easily on it."""
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return "#ffffff" if 0.299 * red + 0.587 * green + 0.114 * blue < 125 else "#000000"


# Wider on a click: the boxes under the one clicked become as wide as the picture, the others go.
SCRIPT = """<script><![CDATA[
const left = %(left)d, width = %(width)d, letter = %(letter)f;
const boxes = Array.from(document.querySelectorAll("g.box"));
function show(from, wide) {
  for (const box of boxes) {
    const x = +box.dataset.x, w = +box.dataset.w;
    const begin = Math.max(x, from), end = Math.min(x + w, from + wide);
    const seen = end - begin > 1e-3;
    box.style.display = seen ? "" : "none";
    if (!seen) continue;
    const scale = width / wide, at = left + (begin - from) * scale, size = (end - begin) * scale;
    const rect = box.querySelector("rect"), text = box.querySelector("text");
    rect.setAttribute("x", at); rect.setAttribute("width", Math.max(size - 0.4, 0.2));
    text.setAttribute("x", at + 3);
    const letters = Math.floor((size - 5) / letter);
    let name = box.dataset.name;
    while (name.length > letters && /^[\\w&<]+::/.test(name)) name = name.slice(name.indexOf("::") + 2);
    text.textContent = letters < 3 ? "" : name.length <= letters ? name : name.slice(0, letters - 1) + "\\u2026";
  }
}
for (const box of boxes) {
  box.style.cursor = "pointer";
  box.addEventListener("click", () => show(+box.dataset.x, +box.dataset.w));
}
]]></script>"""
