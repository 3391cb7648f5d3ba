// Reloads the page until a model answers. A refresh by the page's head would not: where the address
// has a fragment, a browser only scrolls.
const MILLISECONDS = 2000;
setTimeout(() => location.reload(), MILLISECONDS);
