// The part of runtime/web/page/page.js that the page without a server uses.

export interface PageWire {
  readonly inFlight: number;
  readonly crowded: boolean;
  connect(): void | Promise<void>;
}

export function startPage(
  makeWire: (take: (answer: object) => void, change: (state: string, reason: string, share?: number) => void) => PageWire,
): { wire: PageWire };
