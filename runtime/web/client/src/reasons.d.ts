// The part of runtime/web/page/reasons.js that the page without a server uses.

export function inWords(text: string): string;
