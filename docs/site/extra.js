/* What the theme leaves out for keyboards and screen readers. Its own script wraps tables and adds buttons, so this runs after it. */
function reach() {
  document.querySelectorAll(".md-search").forEach((part) => part.setAttribute("aria-label", "Search"));
  document.querySelectorAll(".md-nav--secondary .md-nav").forEach((part) => {
    part.setAttribute("role", "none");
    part.removeAttribute("aria-label");
  });
  document.querySelectorAll(".md-typeset__scrollwrap, .md-typeset pre > code, .md-typeset table:not([class])").forEach((part) => {
    if (part.scrollWidth > part.clientWidth) part.tabIndex = 0;
  });
  document.querySelectorAll("nav.md-nav[aria-labelledby]").forEach((part) => {
    const title = part.querySelector(":scope > .md-nav__title");
    if (!title) return;
    part.setAttribute("aria-label", title.textContent.trim());
    part.removeAttribute("aria-labelledby");
  });
  document.querySelectorAll(".md-code__nav").forEach((part, place) => part.setAttribute("aria-label", `Code block ${place + 1}`));
}
window.addEventListener("load", () => setTimeout(reach));
window.addEventListener("resize", reach);
