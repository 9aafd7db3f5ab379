// The buttons of the sidebar that unfold a page have no name of their own.
for (const button of document.querySelectorAll(".bd-sidenav summary")) {
  const page = button.closest("li").querySelector("a").textContent.trim();
  button.setAttribute("aria-label", `Pages below ${page}`);
}
