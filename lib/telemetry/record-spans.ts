import { context, type Span, SpanStatusCode, type Tracer, trace } from '@opentelemetry/api'
import type { VerifyMessage, VerifyStartMessage } from '../core/diagnostics/messages.ts'
import { listen } from './listen.ts'
import { attributesOf, isFault } from './record-metrics.ts'

/** Makes a span for each verification, which is active while it runs; returns what ends it. */
export function recordSpans(tracer: Tracer): () => void {
  const open = new Map<VerifyStartMessage, Span>()

  function begin(message: VerifyStartMessage): void {
    const active = context.active()
    const span = tracer.startSpan('latchkey.verify', {}, active)
    open.set(message, span)
    // Spans of the store's driver and of Redis become its children.
    message.runInside((verify) => context.with(trace.setSpan(active, span), verify))
  }

  function end(message: VerifyMessage): void {
    const span = message.start && open.get(message.start)
    if (!span) return
    open.delete(message.start)
    span.setAttributes(attributesOf(message))
    if (isFault(message.outcome)) span.setStatus({ code: SpanStatusCode.ERROR, message: message.outcome })
    span.end()
  }

  const stopListening = listen({ 'latchkey:verify:start': begin, 'latchkey:verify': end })
  return () => {
    stopListening()
    for (const span of open.values()) span.end()
    open.clear()
  }
}
