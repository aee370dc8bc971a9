/* Opens a file as a database server attaches it, and tries to change it.
 *
 *   attach.exe FILE COPY      FILE is read by overlapped 8 KiB reads into COPY
 *
 * Prints one line a step: its name, then what came of it. A step that Windows refuses says the error's
 * number. Used by tests/system/test_wine.py.
 */
#include <windows.h>

#include <stdio.h>
#include <string.h>

#define PAGE 8192
#define IN_FLIGHT 4
#define SYSTEM_PAGE 4096

static const DWORD AS_A_DATABASE = FILE_FLAG_NO_BUFFERING | FILE_FLAG_WRITE_THROUGH |
                                   FILE_FLAG_OVERLAPPED | FILE_FLAG_RANDOM_ACCESS;

static void say(const char *step, BOOL done)
{
    if (done)
        printf("%s ok\n", step);
    else
        printf("%s error %lu\n", step, GetLastError());
}

static HANDLE opened(const wchar_t *path, DWORD access, DWORD share, DWORD flags)
{
    return CreateFileW(path, access, share, NULL, OPEN_EXISTING, flags, NULL);
}

static BOOL finished(HANDLE file, OVERLAPPED *request, BOOL begun, DWORD *count)
{
    if (!begun && GetLastError() != ERROR_IO_PENDING)
        return FALSE;
    return GetOverlappedResult(file, request, count, TRUE);
}

static void at(OVERLAPPED *request, LONGLONG offset)
{
    request->Offset = (DWORD)offset;
    request->OffsetHigh = (DWORD)(offset >> 32);
}

/* The whole file, several reads at once, as a buffer pool asks for pages. */
static BOOL copied(HANDLE file, LONGLONG size, const wchar_t *copy)
{
    OVERLAPPED requests[IN_FLIGHT] = {0};
    BOOL begun[IN_FLIGHT];
    char *pages = VirtualAlloc(NULL, IN_FLIGHT * PAGE, MEM_COMMIT, PAGE_READWRITE);
    HANDLE target = CreateFileW(copy, GENERIC_WRITE, 0, NULL, CREATE_ALWAYS, 0, NULL);
    BOOL whole = pages != NULL && target != INVALID_HANDLE_VALUE;

    for (int n = 0; n < IN_FLIGHT; n++)
        requests[n].hEvent = CreateEventW(NULL, TRUE, FALSE, NULL);
    for (LONGLONG start = 0; whole && start < size; start += IN_FLIGHT * PAGE) {
        int count = 0;
        for (; count < IN_FLIGHT && start + count * PAGE < size; count++) {
            at(&requests[count], start + count * PAGE);
            begun[count] = ReadFile(file, pages + count * PAGE, PAGE, NULL, &requests[count]);
            if (!begun[count] && GetLastError() != ERROR_IO_PENDING)
                whole = FALSE;
        }
        for (int n = 0; whole && n < count; n++) {
            DWORD bytes = 0, written = 0;
            whole = GetOverlappedResult(file, &requests[n], &bytes, TRUE) &&
                    WriteFile(target, pages + n * PAGE, bytes, &written, NULL) && bytes == written;
        }
    }
    CloseHandle(target);
    return whole;
}

/* Two pages into places of memory that lie the other way round. */
static BOOL scattered(HANDLE file)
{
    char *plain = VirtualAlloc(NULL, 4 * SYSTEM_PAGE, MEM_COMMIT, PAGE_READWRITE);
    char *apart = plain + 2 * SYSTEM_PAGE;
    FILE_SEGMENT_ELEMENT places[3] = {{0}};
    OVERLAPPED request = {0};
    DWORD count = 0;

    request.hEvent = CreateEventW(NULL, TRUE, FALSE, NULL);
    at(&request, PAGE);
    if (!finished(file, &request, ReadFile(file, plain, PAGE, NULL, &request), &count) || count != PAGE)
        return FALSE;
    places[0].Buffer = apart + SYSTEM_PAGE;
    places[1].Buffer = apart;
    if (!finished(file, &request, ReadFileScatter(file, places, PAGE, NULL, &request), &count))
        return FALSE;
    SetLastError(ERROR_CRC);
    return count == PAGE && !memcmp(plain, apart + SYSTEM_PAGE, SYSTEM_PAGE) &&
           !memcmp(plain + SYSTEM_PAGE, apart, SYSTEM_PAGE);
}

/* A view of the whole file holds what the copy holds. */
static BOOL mapped(const wchar_t *path, LONGLONG size, const wchar_t *copy)
{
    HANDLE file = opened(path, GENERIC_READ, FILE_SHARE_READ, FILE_FLAG_SEQUENTIAL_SCAN);
    HANDLE section = CreateFileMappingW(file, NULL, PAGE_READONLY, 0, 0, NULL);
    char *view = section ? MapViewOfFile(section, FILE_MAP_READ, 0, 0, 0) : NULL;
    HANDLE truth = opened(copy, GENERIC_READ, FILE_SHARE_READ, 0);
    char page[PAGE];
    DWORD count = 0;
    LONGLONG start = 0;

    if (view == NULL)
        return FALSE;
    SetLastError(ERROR_CRC);
    while (start < size && ReadFile(truth, page, PAGE, &count, NULL) && count) {
        if (memcmp(view + start, page, count))
            return FALSE;
        start += count;
    }
    UnmapViewOfFile(view);
    CloseHandle(section);
    CloseHandle(file);
    CloseHandle(truth);
    return start == size;
}

static void refused(const char *step, HANDLE file)
{
    say(step, file != INVALID_HANDLE_VALUE);
    if (file != INVALID_HANDLE_VALUE)
        CloseHandle(file);
}

int wmain(int count, wchar_t **words)
{
    LARGE_INTEGER size = {{0}};
    OVERLAPPED range = {0};
    wchar_t beside[2048];
    HANDLE file;

    if (count != 3)
        return 2;
    file = opened(words[1], GENERIC_READ, 0, AS_A_DATABASE);
    say("exclusive", file != INVALID_HANDLE_VALUE);
    refused("second", opened(words[1], GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE, 0));
    if (GetFileSizeEx(file, &size))
        printf("size %lld\n", size.QuadPart);
    say("copy", copied(file, size.QuadPart, words[2]));
    say("scatter", scattered(file));
    range.hEvent = CreateEventW(NULL, TRUE, FALSE, NULL);
    say("lock", LockFileEx(file, LOCKFILE_EXCLUSIVE_LOCK | LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &range));
    say("unlock", UnlockFileEx(file, 0, 1, 0, &range));
    CloseHandle(file);
    refused("after", opened(words[1], GENERIC_READ, FILE_SHARE_READ, 0));
    say("map", mapped(words[1], size.QuadPart, words[2]));
    refused("write", opened(words[1], GENERIC_READ | GENERIC_WRITE, 0, AS_A_DATABASE));
    say("delete", DeleteFileW(words[1]));
    swprintf(beside, 2048, L"%ls.new", words[1]);
    say("rename", MoveFileW(words[1], beside));
    refused("create", CreateFileW(beside, GENERIC_WRITE, 0, NULL, CREATE_NEW, 0, NULL));
    return 0;
}
