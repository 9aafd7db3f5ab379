// The buttons of the sidebar that unfold a page have no name of their own.
for (const button of document.querySelectorAll(".bd-sidenav summary")) {
  const page = button.closest("li").querySelector("a").textContent.trim();
  button.setAttribute("aria-label", `Pages below ${page}`);
}
// docutils gives roles to references that are deprecated, or whose parents do not allow them.
for (const part of document.querySelectorAll(".citation-list, .citation, .citation [role]")) {
  part.removeAttribute("role");
}
