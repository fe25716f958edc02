import { type ArgumentsHost, Catch, type ExceptionFilter } from '@nestjs/common'
import { LatchkeyError } from 'latchkey'
import { apiKeyErrorHandler } from 'latchkey/express'
import { throwError } from 'rxjs'

/** Answers Latchkey errors with their header fields and a problem body (RFC 9457), as on Express. */
@Catch(LatchkeyError)
export class ProblemFilter implements ExceptionFilter<LatchkeyError> {
  private readonly answer = apiKeyErrorHandler()

  catch(error: LatchkeyError, host: ArgumentsHost): unknown {
    // Nest expects this of a filter when there is no HTTP response to write to.
    if (host.getType<string>() !== 'http') return throwError(() => error)
    const http = host.switchToHttp()
    return this.answer(error, http.getRequest(), http.getResponse(), http.getNext())
  }
}
