// The part of runtime/web/page/words.js that the page without a server uses.

export function say(key: string, values?: Record<string, string | number>): string;
